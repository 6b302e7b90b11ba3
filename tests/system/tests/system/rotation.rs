//! Keys that are replaced while they are in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyd_core::{Algorithm, KeyId, Protection, SignInput};
use peers::token::Token;
use system::keyd::{Keyd, namespaces, token_with_pin};
use tokio::task::JoinSet;

const ROTATIONS: usize = 40;
const SIGNERS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn no_signature_fails_while_the_key_is_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::kryoptic(dir.path()).unwrap();
    let tables: &[(&str, &[Protection])] =
        &[("hsm", &[Protection::Hsm]), ("wrapped", &[Protection::HsmWrapped])];
    let config = token_with_pin(&token, dir.path()).unwrap() + &namespaces(tables);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let client = keyd.client();
    for key in ["hsm/a", "wrapped/a"] {
        let key: KeyId = key.parse().unwrap();
        let mut versions = vec![client.create_key(&key, Algorithm::MlDsa44, None).await.unwrap()];
        let over = Arc::new(AtomicBool::new(false));
        let mut signers = JoinSet::new();
        for _ in 0..SIGNERS {
            let (client, key, over) = (keyd.client(), key.clone(), over.clone());
            signers.spawn(async move {
                let mut signatures = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    let signed = client.sign(&key, SignInput::Message(b"m")).await;
                    signatures.push(signed.unwrap_or_else(|failure| panic!("{key}: {failure}")));
                }
                signatures
            });
        }
        for _ in 0..ROTATIONS {
            versions.push(client.rotate_key(&key, None, None).await.unwrap());
        }
        over.store(true, Ordering::SeqCst);
        for signed in signers.join_all().await.into_iter().flatten() {
            let signer = versions.iter().find(|v| v.public_key.fingerprint() == *signed.fingerprint);
            let signer = signer.expect("the fingerprint is that of a version of the key");
            signer.public_key.verify(SignInput::Message(b"m"), &signed.signature).unwrap();
        }
    }
}
