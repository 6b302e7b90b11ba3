//! What SPIRE's own conformance suite for KeyManagers asks, and what no SPIRE would send.

use std::path::Path;

use keyd_core::{Hash, PublicKey, RsaPadding, SignInput};
use plugin_sdk::proto::keymanager::server as wire;
use plugin_sdk::proto::keymanager::server::key_manager_client::KeyManagerClient;
use plugin_sdk::proto::keymanager::server::sign_data_request::{PssOptions, SignerOpts};
use plugin_sdk::proto::keymanager::server::{HashAlgorithm, KeyType};
use system::keyd::Keyd;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::keyd;
use crate::plugin::Plugin;

struct KeyManager {
    client: KeyManagerClient<Channel>,
    _plugin: Plugin,
}

impl KeyManager {
    async fn start(keyd: &Keyd, tmp: &Path, namespace: &str) -> Self {
        let plugin = Plugin::start("KeyManager", tmp).await;
        let mut client = KeyManagerClient::new(plugin.channel.clone());
        let early = client.get_public_keys(wire::GetPublicKeysRequest {}).await.unwrap_err();
        assert_eq!(early.code(), Code::FailedPrecondition, "before Configure: {early}");
        let socket = keyd.socket();
        let data = format!(
            "socket = {socket:?}\n\nnamespace = \"{namespace}\"\n\n\"x509_ca_algorithm\" = \"ml-dsa-44\""
        );
        plugin.configure(&data).await.unwrap();
        Self { client, _plugin: plugin }
    }

    async fn generate(&mut self, id: &str, key_type: KeyType) -> Result<wire::PublicKey, Status> {
        let request = wire::GenerateKeyRequest { key_id: id.to_owned(), key_type: key_type.into() };
        self.client.generate_key(request).await.map(|r| r.into_inner().public_key.unwrap())
    }

    async fn get(&mut self, id: &str) -> Result<wire::PublicKey, Status> {
        let request = wire::GetPublicKeyRequest { key_id: id.to_owned() };
        self.client.get_public_key(request).await.map(|r| r.into_inner().public_key.unwrap())
    }

    async fn list(&mut self) -> Vec<String> {
        let keys = self.client.get_public_keys(wire::GetPublicKeysRequest {}).await.unwrap();
        keys.into_inner().public_keys.into_iter().map(|k| k.id).collect()
    }

    async fn sign(
        &mut self,
        id: &str,
        data: &[u8],
        opts: Option<SignerOpts>,
    ) -> Result<wire::SignDataResponse, Status> {
        let request = wire::SignDataRequest { key_id: id.to_owned(), data: data.to_vec(), signer_opts: opts };
        self.client.sign_data(request).await.map(|r| r.into_inner())
    }
}

fn hash(algorithm: HashAlgorithm) -> Option<SignerOpts> {
    Some(SignerOpts::HashAlgorithm(algorithm.into()))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, sentence: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(sentence), "{sentence}: {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_sign_every_digest_that_spire_sends() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let mut manager = KeyManager::start(&keyd, dir.path(), "spire-server").await;
    for (id, key_type) in [("ec-p256", KeyType::EcP256), ("ec-p384", KeyType::EcP384)] {
        let made = manager.generate(id, key_type).await.unwrap();
        assert_eq!((made.id.as_str(), made.r#type()), (id, key_type));
        assert_eq!(manager.get(id).await.unwrap(), made);
        let key = PublicKey::from_spki(&made.pkix_data).unwrap();
        assert_eq!(made.fingerprint, hex::encode(key.fingerprint()));
        for (go, ours) in [
            (HashAlgorithm::Sha256, Hash::Sha256),
            (HashAlgorithm::Sha384, Hash::Sha384),
            (HashAlgorithm::Sha512, Hash::Sha512),
        ] {
            let digest = ours.digest(b"message");
            let signed = manager.sign(id, &digest, hash(go)).await.unwrap();
            assert_eq!(signed.key_fingerprint, made.fingerprint);
            key.verify(SignInput::Digest { hash: ours, digest: &digest }, &signed.signature).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rsa_keys_sign_with_the_padding_that_spire_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let mut manager = KeyManager::start(&keyd, dir.path(), "spire-server").await;
    for (id, key_type) in [("rsa-2048", KeyType::Rsa2048), ("rsa-4096", KeyType::Rsa4096)] {
        let made = manager.generate(id, key_type).await.unwrap();
        assert_eq!((made.id.as_str(), made.r#type()), (id, key_type));
        let key = PublicKey::from_spki(&made.pkix_data).unwrap();
        let digest = Hash::Sha384.digest(b"message");
        let pss = PssOptions { salt_length: -1, hash_algorithm: HashAlgorithm::Sha384.into() };
        for (opts, padding) in [
            (hash(HashAlgorithm::Sha384), RsaPadding::Pkcs1v15),
            (Some(SignerOpts::PssOptions(pss)), RsaPadding::Pss),
        ] {
            let signed = manager.sign(id, &digest, opts).await.unwrap();
            let input = SignInput::RsaDigest { padding, hash: Hash::Sha384, digest: &digest };
            key.verify(input, &signed.signature).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ml_dsa_ca_signs_whole_messages_alone() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let mut manager = KeyManager::start(&keyd, dir.path(), "spire-server").await;
    let made = manager.generate("x509-CA-A", KeyType::EcP256).await.unwrap();
    let key = PublicKey::from_spki(&made.pkix_data).unwrap();
    let none = hash(HashAlgorithm::UnspecifiedHashAlgorithm);
    let signed = manager.sign("x509-CA-A", b"certificate", none).await.unwrap();
    assert_eq!(signed.key_fingerprint, made.fingerprint);
    key.verify(SignInput::Message(b"certificate"), &signed.signature).unwrap();

    let digest = manager.sign("x509-CA-A", &[7; 32], hash(HashAlgorithm::Sha256)).await;
    assert_eq!(digest.unwrap_err().code(), Code::InvalidArgument);
    manager.generate("ec", KeyType::EcP256).await.unwrap();
    refused(manager.sign("ec", b"message", none).await, Code::InvalidArgument, "hash algorithm is required");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_same_id_replaces_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let mut manager = KeyManager::start(&keyd, dir.path(), "spire-server").await;
    let old = manager.generate("id", KeyType::EcP256).await.unwrap();
    let new = manager.generate("id", KeyType::EcP384).await.unwrap();
    assert_eq!(new.r#type(), KeyType::EcP384);
    assert_ne!(new.fingerprint, old.fingerprint);
    let signed = manager.sign("id", &[7; 32], hash(HashAlgorithm::Sha256)).await.unwrap();
    assert_eq!(signed.key_fingerprint, new.fingerprint, "SPIRE sees that the old key is gone");
    assert_eq!(manager.list().await, ["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_namespace_is_out_of_reach() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let mut server = KeyManager::start(&keyd, dir.path(), "spire-server").await;
    server.generate("JWT-Signer-A", KeyType::EcP256).await.unwrap();
    let mut agent = KeyManager::start(&keyd, dir.path(), "spire").await;
    assert_eq!(agent.list().await, [""; 0]);
    refused(agent.get("JWT-Signer-A").await, Code::NotFound, "key \"JWT-Signer-A\" not found");
    let outside = agent.get("../spire-server/JWT-Signer-A").await;
    assert_eq!(outside.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_in_the_words_that_spire_expects() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let mut manager = KeyManager::start(&keyd, dir.path(), "spire-server").await;
    let sha256 = hash(HashAlgorithm::Sha256);
    let digest = [7; 32];
    use Code::{InvalidArgument, NotFound};

    refused(manager.generate("", KeyType::EcP256).await, InvalidArgument, "key id is required");
    refused(
        manager.generate("id", KeyType::UnspecifiedKeyType).await,
        InvalidArgument,
        "key type is required",
    );
    refused(manager.get("").await, InvalidArgument, "key id is required");
    refused(manager.get("nope").await, NotFound, "key \"nope\" not found");
    refused(manager.sign("", &digest, sha256).await, InvalidArgument, "key id is required");
    refused(manager.sign("nope", &digest, sha256).await, NotFound, "key \"nope\" not found");

    manager.generate("id", KeyType::EcP256).await.unwrap();
    refused(manager.sign("id", &digest, None).await, InvalidArgument, "signer opts is required");
    refused(
        manager.sign("id", &digest, hash(HashAlgorithm::Sha3256)).await,
        InvalidArgument,
        "not of SHA3_256",
    );
    let pss = PssOptions { salt_length: -1, hash_algorithm: HashAlgorithm::Sha256.into() };
    refused(
        manager.sign("id", &digest, Some(SignerOpts::PssOptions(pss))).await,
        InvalidArgument,
        "no padding",
    );
    let short = manager.sign("id", &digest[..31], sha256).await;
    assert_eq!(short.unwrap_err().code(), InvalidArgument);
}
