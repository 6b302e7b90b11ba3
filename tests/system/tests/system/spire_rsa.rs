//! The unmodified spire-server with RSA keys, made in a token without ML-DSA: what it signs with PKCS#1 v1.5 is right in
//! other eyes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use keyd_core::{Algorithm, Hash, Protection, PublicKey, RsaPadding, SignInput};
use keyd_x509::parse_pem_chain;
use peers::spire::{ServerConfig, SpireServer};
use peers::token::Token;
use serde_json::Value;
use system::keyd::{Keyd, namespaces, token_with_pin};
use system::openssl::verify_chain;
use system::spire::key_manager;

const TRUST_DOMAIN: &str = "rsa.example";
/// Making an RSA-4096 key takes seconds, on a busy machine many.
const PATIENCE: &str = "call_deadline_ms = 60000\n";
const WORKLOAD: &str = "spiffe://rsa.example/workload";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_rsa_2048_keys_in_the_token_issues_and_keeps_them() {
    issues("rsa-2048", Algorithm::Rsa2048).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_rsa_4096_keys_in_the_token_issues_and_keeps_them() {
    issues("rsa-4096", Algorithm::Rsa4096).await;
}

async fn issues(key_type: &str, algorithm: Algorithm) {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let table = token_with_pin(&token, dir.path()).unwrap()
        + PATIENCE
        + &namespaces(&[("spire-server", &[Protection::Hsm])]);
    let keyd = Keyd::start(dir.path(), &table).await.unwrap();
    let mut config = ServerConfig::hcl(TRUST_DOMAIN, key_manager(&keyd.socket(), "").unwrap()).unwrap();
    config.settings = format!("ca_key_type = \"{key_type}\"\njwt_key_type = \"{key_type}\"\n");
    let server = SpireServer::start(&dir.path().join("spire"), &config).await.unwrap();

    let first = Issued::by(&server).await;
    let keys = keys(&keyd).await;
    assert_eq!(first.ca, keys["x509-CA-A"]);
    first.check_jwt(&keys["JWT-Signer-A"]);
    assert!(keys.values().all(|key| key.algorithm() == algorithm), "{keys:?}");
    server.stop().await.unwrap();

    // SPIRE finds both by what its journal has of them.
    let server = SpireServer::start(&dir.path().join("spire"), &config).await.unwrap();
    let again = Issued::by(&server).await;
    assert_eq!(again.ca, first.ca);
    assert_eq!(again.header()["kid"], first.header()["kid"]);
    again.check_jwt(&keys["JWT-Signer-A"]);
    server.stop().await.unwrap();
    keyd.stop().await.unwrap();
}

/// The server's keys by name. Each is in the token.
async fn keys(keyd: &Keyd) -> BTreeMap<String, PublicKey> {
    let keys = keyd.client().list_keys(Some(&"spire-server".parse().unwrap())).await.unwrap();
    assert!(keys.iter().all(|key| key.protection == Protection::Hsm), "{keys:?}");
    keys.into_iter().map(|info| (info.key.name.to_string(), info.public_key)).collect()
}

/// What a server mints.
struct Issued {
    /// The key of the authority, self-signed, under which OpenSSL verified the X.509-SVID.
    ca: PublicKey,
    jwt: String,
}

impl Issued {
    async fn by(server: &SpireServer) -> Self {
        let minted = server.mint(WORKLOAD).await.unwrap();
        assert_eq!(verify_chain(&minted.svid, &minted.bundle).await.unwrap(), ["sha256WithRSAEncryption"]);
        let read = |file| parse_pem_chain("PEM", &std::fs::read(file).unwrap()).unwrap();
        let [svid] = read(&minted.svid).try_into().unwrap();
        assert_eq!(svid.leaf_spiffe_id().unwrap().as_str(), WORKLOAD);
        let [ca] = read(&minted.bundle).try_into().unwrap();
        let ca = ca.public_key().unwrap();
        let jwt = server.command(&["jwt", "mint", "-spiffeID", WORKLOAD, "-audience", "peer"]).await.unwrap();
        Self { ca, jwt: jwt.trim().to_owned() }
    }

    fn header(&self) -> Value {
        let (header, _) = self.jwt.split_once('.').unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
    }

    /// RS256 (RFC 7518 §3.3).
    fn check_jwt(&self, key: &PublicKey) {
        assert_eq!(self.header()["alg"], "RS256");
        let (signed, signature) = self.jwt.rsplit_once('.').unwrap();
        let digest = Hash::Sha256.digest(signed.as_bytes());
        let input =
            SignInput::RsaDigest { padding: RsaPadding::Pkcs1v15, hash: Hash::Sha256, digest: &digest };
        key.verify(input, &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    }
}
