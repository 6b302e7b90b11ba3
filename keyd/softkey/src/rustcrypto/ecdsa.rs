//! ECDSA over P-256 and P-384 (FIPS 186-5) by RustCrypto.

use getrandom::SysRng;
use keyd_core::{Algorithm, Failure, Hash, Reason, Secret, SignInput};
use p256::ecdsa::signature::hazmat::RandomizedPrehashSigner;
use p256::elliptic_curve::Generate;
use p256::pkcs8::EncodePrivateKey;

use super::library;
use crate::private_key::{PrivateKey, unfit};

pub(crate) enum EcdsaKey {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
}

/// Makes the scalar of a new key.
pub(crate) fn generate_secret(algorithm: Algorithm) -> Result<Secret, Failure> {
    let failed = |_| library("make an elliptic-curve key");
    match algorithm {
        Algorithm::EcP256 => {
            let key = p256::SecretKey::try_generate_from_rng(&mut SysRng).map_err(failed)?;
            Ok(Secret::new(key.to_bytes().to_vec()))
        }
        Algorithm::EcP384 => {
            let key = p384::SecretKey::try_generate_from_rng(&mut SysRng).map_err(failed)?;
            Ok(Secret::new(key.to_bytes().to_vec()))
        }
        other => Err(no_curve(other)),
    }
}

impl EcdsaKey {
    pub(crate) fn from_scalar(algorithm: Algorithm, scalar: &Secret) -> Result<Self, Failure> {
        match algorithm {
            Algorithm::EcP256 => p256::ecdsa::SigningKey::from_slice(scalar.expose()).map(Self::P256),
            Algorithm::EcP384 => p384::ecdsa::SigningKey::from_slice(scalar.expose()).map(Self::P384),
            other => return Err(no_curve(other)),
        }
        .map_err(|_| Failure::new(Reason::BadRequest, format!("not a private scalar of {algorithm}")))
    }

    /// Takes the leftmost bits of a digest that is longer than the curve's order (FIPS 186-5 §6.4.1).
    fn sign_digest(&self, digest: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            Self::P256(key) => key
                .sign_prehash_with_rng(&mut SysRng, digest)
                .map(|signature: p256::ecdsa::DerSignature| signature.as_bytes().to_vec()),
            Self::P384(key) => key
                .sign_prehash_with_rng(&mut SysRng, digest)
                .map(|signature: p384::ecdsa::DerSignature| signature.as_bytes().to_vec()),
        }
        .map_err(|_| library("sign with ECDSA"))
    }
}

impl PrivateKey for EcdsaKey {
    fn raw_public(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::P384(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
        }
    }

    fn sign(&self, input: SignInput<'_>) -> Result<Vec<u8>, Failure> {
        match (self, input) {
            (Self::P256(_), SignInput::Message(message)) => self.sign_digest(&Hash::Sha256.digest(message)),
            (Self::P384(_), SignInput::Message(message)) => self.sign_digest(&Hash::Sha384.digest(message)),
            (_, SignInput::Digest { digest, .. }) => self.sign_digest(digest),
            (_, SignInput::RsaDigest { .. }) => Err(unfit()),
        }
    }

    fn to_pkcs8(&self) -> Result<Secret, Failure> {
        let document = match self {
            Self::P256(key) => key.to_pkcs8_der(),
            Self::P384(key) => key.to_pkcs8_der(),
        };
        Ok(Secret::new(document.map_err(|_| library("encode an elliptic-curve key"))?.as_bytes().to_vec()))
    }
}

fn no_curve(algorithm: Algorithm) -> Failure {
    Failure::new(Reason::Internal, format!("{algorithm} is no elliptic curve"))
}
