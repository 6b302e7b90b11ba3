//! Everything by RustCrypto, for a build without C.

mod ecdsa;
mod ml_dsa;
mod ml_kem;

use ::ml_dsa::{MlDsa44, MlDsa65, MlDsa87};
use ::ml_kem::{DecapsulationKey768, DecapsulationKey1024};
use keyd_core::{Algorithm, Failure, Family, Reason, Secret};

use ecdsa::EcdsaKey;
use ml_dsa::MlDsaKey;
use ml_kem::MlKemKey;

use crate::private_key::PrivateKey;

/// Makes the secret of a new key that is not any bytes.
pub(crate) fn generate_secret(algorithm: Algorithm) -> Result<Secret, Failure> {
    match algorithm.family() {
        Family::Ec => ecdsa::generate_secret(algorithm),
        Family::Rsa => Err(no_software_rsa(algorithm)),
        Family::MlDsa | Family::MlKem => {
            Err(Failure::new(Reason::Internal, format!("{algorithm} keys are made from any bytes")))
        }
    }
}

/// Expands a secret into a key.
pub(crate) fn open(algorithm: Algorithm, secret: &Secret) -> Result<Box<dyn PrivateKey>, Failure> {
    Ok(match algorithm {
        Algorithm::MlDsa44 => Box::new(MlDsaKey::<MlDsa44>::from_seed(secret)?),
        Algorithm::MlDsa65 => Box::new(MlDsaKey::<MlDsa65>::from_seed(secret)?),
        Algorithm::MlDsa87 => Box::new(MlDsaKey::<MlDsa87>::from_seed(secret)?),
        Algorithm::EcP256 | Algorithm::EcP384 => Box::new(EcdsaKey::from_scalar(algorithm, secret)?),
        Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
            return Err(no_software_rsa(algorithm));
        }
        Algorithm::MlKem768 => Box::new(MlKemKey::<DecapsulationKey768>::from_seed(secret)?),
        Algorithm::MlKem1024 => Box::new(MlKemKey::<DecapsulationKey1024>::from_seed(secret)?),
    })
}

/// A fault of the cryptographic library, which says nothing more.
fn library(what: &str) -> Failure {
    Failure::new(Reason::Internal, format!("RustCrypto could not {what}"))
}

/// RustCrypto's `rsa` gave private keys away through its timing for years (RUSTSEC-2023-0071), and the release that is
/// said to end it is young. keyd-core verifies with it, which needs no secret.
fn no_software_rsa(algorithm: Algorithm) -> Failure {
    Failure::new(
        Reason::ProtectionUnavailable,
        format!(
            "a keyd that is built without aws-lc-rs holds no {algorithm} keys in software, because RustCrypto's RSA may \
             give them away by the time it takes (RUSTSEC-2023-0071); make the key in a token, or use a build with \
             aws-lc-rs"
        ),
    )
}
