//! Making, using and destroying keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fault_shim::{Action, Fault};
use keyd_core::{Algorithm, Hash, Health, HealthState, Reason, RsaPadding, SignInput, Vault};
use keyd_pkcs11::{ObjectKind, Token};
use ml_dsa::{EncodedVerifyingKey, MlDsa44, MlDsa65, MlDsa87, MlDsaParams, Signature, VerifyingKey};
use tokio::time::Instant;

use super::faults::{Bench, Use};
use super::{create, kryoptic, sign, softhsm, token, with_ml_dsa};

/// The second implementation's verdict on a pure signature with an empty context.
fn second_opinion<P: MlDsaParams>(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let public = VerifyingKey::<P>::decode(&EncodedVerifyingKey::<P>::try_from(public).unwrap());
    let signature = Signature::<P>::try_from(signature).unwrap();
    public.verify_with_context(message, &[], &signature)
}

#[tokio::test]
async fn ml_dsa_keys_sign_for_two_verifiers() {
    for (_dir, config) in with_ml_dsa() {
        let token = token(&config);
        for (algorithm, verify) in [
            (Algorithm::MlDsa44, second_opinion::<MlDsa44> as fn(&[u8], &[u8], &[u8]) -> bool),
            (Algorithm::MlDsa65, second_opinion::<MlDsa65>),
            (Algorithm::MlDsa87, second_opinion::<MlDsa87>),
        ] {
            assert!(token.supports(algorithm).await.unwrap(), "{algorithm}");
            let key = create(&token, algorithm).await;
            let signature = token.sign(&key.handle, algorithm, SignInput::Message(b"m")).await.unwrap();
            key.public_key.verify(SignInput::Message(b"m"), &signature).unwrap();
            assert!(verify(key.public_key.raw(), b"m", &signature), "{algorithm}");
            assert!(!verify(key.public_key.raw(), b"n", &signature), "{algorithm}");
        }
    }
}

async fn elliptic_keys_sign_messages_and_digests(token: Token) {
    for (algorithm, own) in [(Algorithm::EcP256, Hash::Sha256), (Algorithm::EcP384, Hash::Sha384)] {
        assert!(token.supports(algorithm).await.unwrap(), "{algorithm}");
        let key = create(&token, algorithm).await;
        sign(&token, &key, b"m").await;
        for hash in [own, Hash::Sha512] {
            let digest = hash.digest(b"m");
            let input = SignInput::Digest { hash, digest: &digest };
            let signature = token.sign(&key.handle, algorithm, input).await.unwrap();
            key.public_key.verify(input, &signature).unwrap();
        }
    }
}

#[tokio::test]
async fn elliptic_keys_sign_on_kryoptic() {
    let (_dir, config) = kryoptic();
    elliptic_keys_sign_messages_and_digests(token(&config)).await;
}

#[tokio::test]
async fn elliptic_keys_sign_on_softhsm() {
    let (_dir, config) = softhsm();
    elliptic_keys_sign_messages_and_digests(token(&config)).await;
}

async fn rsa_keys_sign_digests_with_either_padding(token: Token, algorithms: &[Algorithm]) {
    for algorithm in algorithms.iter().copied() {
        assert!(token.supports(algorithm).await.unwrap(), "{algorithm}");
        let key = create(&token, algorithm).await;
        for (padding, hash) in [
            (RsaPadding::Pkcs1v15, Hash::Sha256),
            (RsaPadding::Pkcs1v15, Hash::Sha384),
            (RsaPadding::Pkcs1v15, Hash::Sha512),
            (RsaPadding::Pss, Hash::Sha256),
            (RsaPadding::Pss, Hash::Sha384),
            (RsaPadding::Pss, Hash::Sha512),
        ] {
            let digest = hash.digest(b"m");
            let input = SignInput::RsaDigest { padding, hash, digest: &digest };
            let signature = token.sign(&key.handle, algorithm, input).await.unwrap();
            key.public_key.verify(input, &signature).unwrap();
        }
        let message = token.sign(&key.handle, algorithm, SignInput::Message(b"m")).await.unwrap_err();
        assert!(message.message.contains("signs a digest with a padding"), "{message}");
    }
}

#[tokio::test]
async fn rsa_keys_sign_on_kryoptic() {
    let (_dir, config) = kryoptic();
    rsa_keys_sign_digests_with_either_padding(token(&config), &[Algorithm::Rsa2048]).await;
}

#[tokio::test]
async fn rsa_keys_of_every_size_sign_on_softhsm() {
    let (_dir, config) = softhsm();
    let sizes = [Algorithm::Rsa2048, Algorithm::Rsa3072, Algorithm::Rsa4096];
    rsa_keys_sign_digests_with_either_padding(token(&config), &sizes).await;
}

#[tokio::test]
async fn what_is_encapsulated_in_software_is_decapsulated_in_the_token() {
    let (_dir, config) = kryoptic();
    let token = token(&config);
    for algorithm in [Algorithm::MlKem768, Algorithm::MlKem1024] {
        let (key, other) = (create(&token, algorithm).await, create(&token, algorithm).await);
        let (ciphertext, secret) = key.public_key.encapsulate().unwrap();
        let found = token.decapsulate(&key.handle, algorithm, &ciphertext).await.unwrap();
        assert_eq!(found.expose(), secret.expose(), "{algorithm}");
        // Implicit rejection: another key gets a secret, and not this one.
        let foreign = token.decapsulate(&other.handle, algorithm, &ciphertext).await.unwrap();
        assert_ne!(foreign.expose(), secret.expose(), "{algorithm}");
        for refused in [
            token.decapsulate(&key.handle, algorithm, &ciphertext[1..]).await.unwrap_err(),
            token.decapsulate(&key.handle, Algorithm::MlDsa65, &ciphertext).await.unwrap_err(),
            token.sign(&key.handle, algorithm, SignInput::Message(b"m")).await.unwrap_err(),
        ] {
            assert_eq!(refused.reason, Reason::BadRequest, "{refused}");
        }
    }
    // The shared secrets are gone from the token.
    assert_eq!(token.list_objects().await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_token_without_ml_dsa_says_so_and_keeps_nothing() {
    let (_dir, config) = softhsm();
    let token = token(&config);
    assert!(!token.supports(Algorithm::MlDsa65).await.unwrap());
    let id = "spire-server/x509-CA-A".parse().unwrap();
    let refusal = token.create(&id, Algorithm::MlDsa65).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::ProtectionUnavailable, "{refusal}");
    assert_eq!(token.list_objects().await.unwrap(), []);
}

#[tokio::test]
async fn a_key_is_found_again_by_another_process() {
    for (_dir, config) in with_ml_dsa() {
        let first = token(&config);
        let key = create(&first, Algorithm::MlDsa65).await;
        drop(first);
        sign(&token(&config), &key, b"after a restart").await;
    }
}

#[tokio::test]
async fn private_keys_are_sensitive_and_cannot_be_extracted() {
    for (_dir, config) in with_ml_dsa().chain([softhsm()]) {
        let token = token(&config);
        let key = create(&token, Algorithm::EcP256).await;
        let objects = token.list_objects().await.unwrap();
        assert_eq!(objects.len(), 2, "{objects:?}");
        for object in &objects {
            assert_eq!((&object.id, object.label.as_str()), (&key.handle, "spire-server/x509-CA-A"));
        }
        let private = objects.iter().find(|object| object.kind == ObjectKind::PrivateKey).unwrap();
        assert!(private.sensitive && !private.extractable, "{private:?}");
    }
}

/// More than a page of each half, and a worker that dies between two pages, of which the next one knows no handle.
#[tokio::test]
async fn a_token_that_is_full_is_listed_whole() {
    const KEYS: usize = 1030;
    let bench = Bench::new(Use::Sign).await;
    multiply(bench.dir.path(), KEYS);
    let token = bench.token();
    // The shim counts the searches: one for each page, of which there are more where the machine is slow.
    for (fault, pages) in [(Action::Pass, 5), (Action::Abort, 7)] {
        bench.inject("C_FindObjectsInit", Fault { times: 1, ..Fault::always(fault).skipping(1) });
        let objects = token.list_objects().await.unwrap();
        assert!(bench.calls("C_FindObjectsInit") >= pages);
        for kind in [ObjectKind::PrivateKey, ObjectKind::PublicKey] {
            assert_eq!(objects.iter().filter(|object| object.kind == kind).count(), KEYS, "{kind:?}");
        }
    }
    bench.faults.lift("C_FindObjectsInit").unwrap();
    assert_eq!(token.private_keys().await.unwrap().len(), KEYS);
}

#[tokio::test]
async fn a_token_that_reads_slowly_is_listed_whole_though_it_takes_longer_than_a_call_may() {
    const KEYS: usize = 10;
    let mut bench = Bench::new(Use::Sign).await;
    multiply(bench.dir.path(), KEYS);
    bench.config.call_deadline = Duration::from_secs(3);
    let token = bench.token();
    bench.inject("C_GetAttributeValue", Fault::always(Action::Delay(Duration::from_millis(200))));
    let start = Instant::now();
    assert_eq!(token.private_keys().await.unwrap().len(), KEYS);
    assert!(start.elapsed() > bench.config.call_deadline, "{:?}", start.elapsed());
}

/// Makes `count` objects of each that the SoftHSM2 token in `dir` has. Each is a file; making so many keys takes a minute.
fn multiply(dir: &Path, count: usize) {
    let store = fs::read_dir(dir.join("softhsm2")).unwrap().next().unwrap().unwrap().path();
    let files: Vec<_> = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is_object = |file: &&PathBuf| {
        file.extension().is_some_and(|extension| extension == "object") && !file.ends_with("token.object")
    };
    for object in files.iter().filter(is_object) {
        for n in 1..count {
            fs::copy(object, object.with_extension(format!("{n}.object"))).unwrap();
        }
    }
}

#[tokio::test]
async fn deleting_twice_is_no_error_and_the_key_is_gone() {
    for (_dir, config) in with_ml_dsa() {
        let token = token(&config);
        let (key, other) =
            (create(&token, Algorithm::MlDsa44).await, create(&token, Algorithm::MlDsa44).await);
        sign(&token, &key, b"once").await;
        token.delete(&key.handle).await.unwrap();
        token.delete(&key.handle).await.unwrap();
        let gone = token.sign(&key.handle, Algorithm::MlDsa44, SignInput::Message(b"m")).await.unwrap_err();
        assert_eq!(gone.reason, Reason::KeyNotFound, "{gone}");
        assert_eq!(token.list_objects().await.unwrap().len(), 2, "the other key stays");
        sign(&token, &other, b"still here").await;
    }
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_without_a_worker() {
    let (_dir, config) = kryoptic();
    let token = token(&config);
    let handle = [7; 16];
    let digest = |len| SignInput::Digest { hash: Hash::Sha256, digest: &[0; 64][..len] };
    let huge = vec![0; (1 << 20) + 1];
    for (handle, algorithm, input) in [
        (&handle[..], Algorithm::MlDsa65, digest(32)),
        (&handle[..], Algorithm::EcP256, digest(31)),
        (&handle[..], Algorithm::MlDsa65, SignInput::Message(&huge)),
        (&[], Algorithm::MlDsa65, SignInput::Message(b"m")),
        (&handle[..15], Algorithm::EcP256, digest(32)),
    ] {
        let refusal = token.sign(handle, algorithm, input).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::BadRequest, "{refusal}");
    }
    assert_eq!(
        token.delete(&[]).await.unwrap_err().reason,
        Reason::BadRequest,
        "an empty CKA_ID is no key's"
    );
    assert_eq!(token.worker_pid(), None);
}

#[tokio::test]
async fn the_longest_message_is_signed() {
    let (_dir, config) = kryoptic();
    let token = token(&config);
    let key = create(&token, Algorithm::MlDsa65).await;
    sign(&token, &key, &vec![b'x'; 1 << 20]).await;
}

#[tokio::test]
async fn health_tells_what_the_token_can_do() {
    let (_dir, config) = kryoptic();
    let Health { device, state, detail } = Vault::health(&token(&config)).await;
    assert_eq!(state, HealthState::Ok);
    assert!(device.contains("\"field-kit\"") && device.contains("Kryoptic"), "{device}");
    assert_eq!(
        detail,
        "makes ml-dsa-44, ml-dsa-65, ml-dsa-87, ec-p256, ec-p384, rsa-2048, rsa-3072, rsa-4096, ml-kem-768, \
         ml-kem-1024; wraps with AES-GCM"
    );
    let (_dir, config) = softhsm();
    let detail = Vault::health(&token(&config)).await.detail;
    assert_eq!(detail, "makes ec-p256, ec-p384, rsa-2048, rsa-3072, rsa-4096; wraps with AES-GCM");
}
