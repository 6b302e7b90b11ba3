//! Roots, intermediates and requests, made with software keys.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "x509/issuance.rs"]
mod issuance;
#[path = "x509/second_opinion.rs"]
mod second_opinion;
#[path = "x509/self_issued.rs"]
mod self_issued;

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use keyd_core::{Algorithm, Failure, PublicKey, SignInput};
use keyd_softkey::SoftKey;
use keyd_x509::{
    Certificate, Signer, Validity, VerifiedRequest, issue_ca, parse_pem_chain, request, self_signed_root,
    to_pem,
};
use proptest::prelude::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Key(SoftKey);

impl Key {
    fn new(algorithm: Algorithm) -> Self {
        Self(SoftKey::from_secret(algorithm, &SoftKey::generate_secret(algorithm).unwrap()).unwrap())
    }
}

impl Signer for Key {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.0.sign(SignInput::Message(message))
    }
}

/// Keeps what was to be signed.
struct Capture {
    key: Key,
    taken: Mutex<Vec<u8>>,
}

impl Capture {
    fn of(key: Key) -> Self {
        Self { key, taken: Mutex::default() }
    }

    fn taken(&self) -> Vec<u8> {
        self.taken.lock().unwrap().clone()
    }
}

impl Signer for Capture {
    fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        *self.taken.lock().unwrap() = message.to_vec();
        self.key.sign(message).await
    }
}

fn validity() -> Validity {
    Validity::starting(SystemTime::now(), DAY)
}

#[tokio::test]
async fn a_root_issues_an_intermediate_that_ends_with_it() {
    let td = "example.org".parse().unwrap();
    let (root_key, ca_key) = (Key::new(Algorithm::MlDsa87), Key::new(Algorithm::MlDsa65));
    let root = self_signed_root(&root_key, &td, validity()).await.unwrap();
    let csr = VerifiedRequest::from_der(&request(&ca_key, Some(&td.id())).await.unwrap()).unwrap();
    let long = Validity::starting(SystemTime::now(), 10 * DAY);
    let ca = issue_ca(&root_key, &root, &csr, &td, long, None).await.unwrap();
    assert!(root.is_ca().unwrap() && ca.is_ca().unwrap());
    assert_eq!(ca.public_key().unwrap(), *ca_key.public_key());
    assert_eq!(ca.uri_id().unwrap(), td.id());
    assert_eq!(ca.not_after(), root.not_after());
    assert!(ca.leaf_spiffe_id().is_err(), "a CA is no leaf");
    let pem = to_pem([&ca, &root]).unwrap();
    assert_eq!(parse_pem_chain("x.pem", pem.as_bytes()).unwrap(), [ca, root]);
}

#[tokio::test]
async fn another_key_cannot_issue_under_the_root() {
    let td = "example.org".parse().unwrap();
    let root = self_signed_root(&Key::new(Algorithm::EcP256), &td, validity()).await.unwrap();
    let other = Key::new(Algorithm::EcP256);
    let csr = VerifiedRequest::from_der(&request(&other, None).await.unwrap()).unwrap();
    assert!(issue_ca(&other, &root, &csr, &td, validity(), None).await.is_err());
}

#[tokio::test]
async fn a_request_with_any_byte_changed_is_refused() {
    let id = "spiffe://example.org/a".parse().unwrap();
    let der = request(&Key::new(Algorithm::EcP256), Some(&id)).await.unwrap();
    assert_eq!(VerifiedRequest::from_der(&der).unwrap().id(), Some(&id));
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        assert!(VerifiedRequest::from_der(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn pem_of_something_else_is_refused() {
    for text in ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        assert!(parse_pem_chain("x.pem", text.as_bytes()).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes: Vec<u8>) {
        let _ = Certificate::from_der(&bytes);
        let _ = VerifiedRequest::from_der(&bytes);
        let _ = parse_pem_chain("x.pem", &bytes);
    }
}
