//! A private key that stays where it is.

use std::fmt;
use std::sync::Arc;

use keyd_core::{Algorithm, BoxFuture, Failure, PublicKey, Reason};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{OtherError, SignatureAlgorithm, SignatureScheme};
use tokio::runtime::Handle;
use tokio::time::timeout_at;

use crate::handshake::deadline;

/// Whoever holds a private key: keyd, or an agent that signs by handle.
pub trait RemoteSigner: Send + Sync {
    /// Signs a whole message; raw bytes for ML-DSA, DER `ECDSA-Sig-Value` for elliptic curves.
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>>;
}

/// A key as rustls wants to see it, whose signatures come from a [`RemoteSigner`]. It signs within a handshake of
/// [`crate::Handshakes`] alone, where the wait holds up nobody else; anywhere else it fails and says so.
#[derive(Clone)]
pub struct HandleKey {
    public_key: PublicKey,
    signer: Arc<dyn RemoteSigner>,
}

impl HandleKey {
    /// The key that belongs to `public_key`, held by `signer`.
    pub fn new(public_key: PublicKey, signer: Arc<dyn RemoteSigner>) -> Self {
        Self { public_key, signer }
    }

    fn sign_remotely(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let deadline = deadline().ok_or_else(|| {
            Failure::new(Reason::Internal, "a key by handle signs in an Acceptor or Connector alone")
        })?;
        let signature = timeout_at(deadline, self.signer.sign(message));
        tokio::task::block_in_place(|| Handle::current().block_on(signature)).unwrap_or_else(|_| {
            Err(Failure::new(Reason::DeadlineExceeded, "no signature before the handshake's deadline"))
        })
    }
}

impl fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandleKey({:?})", self.public_key)
    }
}

impl SigningKey for HandleKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme =
            signature_scheme(self.public_key.algorithm()).filter(|scheme| offered.contains(scheme))?;
        Some(Box::new(Chosen { key: self.clone(), scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.public_key.spki().into())
    }

    // Asked by TLS 1.2 alone.
    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::Unknown(0)
    }
}

/// A key and the scheme that both sides take.
#[derive(Debug)]
struct Chosen {
    key: HandleKey,
    scheme: SignatureScheme,
}

impl Signer for Chosen {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.key.sign_remotely(message).map_err(|failure| rustls::Error::Other(OtherError(Arc::new(failure))))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// The scheme that a key signs handshakes with; none for one that signs no whole messages, which no profile allows.
fn signature_scheme(algorithm: Algorithm) -> Option<SignatureScheme> {
    match algorithm {
        Algorithm::MlDsa44 => Some(SignatureScheme::ML_DSA_44),
        Algorithm::MlDsa65 => Some(SignatureScheme::ML_DSA_65),
        Algorithm::MlDsa87 => Some(SignatureScheme::ML_DSA_87),
        Algorithm::EcP256 => Some(SignatureScheme::ECDSA_NISTP256_SHA256),
        Algorithm::EcP384 => Some(SignatureScheme::ECDSA_NISTP384_SHA384),
        Algorithm::Rsa2048
        | Algorithm::Rsa3072
        | Algorithm::Rsa4096
        | Algorithm::MlKem768
        | Algorithm::MlKem1024 => None,
    }
}
