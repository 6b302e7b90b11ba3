//! Everything by aws-lc-rs.

mod ecdsa;
mod ml_dsa;
mod ml_kem;
mod rsa;

use keyd_core::{Algorithm, Failure, Family, Reason, Secret};

use ecdsa::EcdsaKey;
use ml_dsa::MlDsaKey;
use ml_kem::MlKemKey;
use rsa::RsaKey;

use crate::private_key::PrivateKey;

/// Makes the secret of a new key that is not any bytes.
pub(crate) fn generate_secret(algorithm: Algorithm) -> Result<Secret, Failure> {
    match algorithm.family() {
        Family::Ec => ecdsa::generate_secret(algorithm),
        Family::Rsa => rsa::generate_secret(algorithm),
        Family::MlDsa | Family::MlKem => {
            Err(Failure::new(Reason::Internal, format!("{algorithm} keys are made from any bytes")))
        }
    }
}

/// Expands a secret into a key.
pub(crate) fn open(algorithm: Algorithm, secret: &Secret) -> Result<Box<dyn PrivateKey>, Failure> {
    Ok(match algorithm.family() {
        Family::MlDsa => Box::new(MlDsaKey::from_seed(algorithm, secret)?),
        Family::Ec => Box::new(EcdsaKey::from_scalar(algorithm, secret)?),
        Family::Rsa => Box::new(RsaKey::from_pkcs8(algorithm, secret)?),
        Family::MlKem => Box::new(MlKemKey::from_seed(algorithm, secret)?),
    })
}

/// A fault of the cryptographic library, which says nothing more.
fn library(what: &str) -> Failure {
    Failure::new(Reason::Internal, format!("aws-lc could not {what}"))
}
