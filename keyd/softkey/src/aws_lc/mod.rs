//! Everything by aws-lc-rs.

mod ecdsa;
mod ml_dsa;
mod ml_kem;
mod rsa;

use keyd_core::{Failure, Reason, Secret};

pub(crate) use ecdsa::EcdsaKey;
pub(crate) use ml_dsa::MlDsaKey;
pub(crate) use ml_kem::MlKemKey;
pub(crate) use rsa::RsaKey;

/// So many random bytes.
pub(crate) fn random(length: usize) -> Result<Secret, Failure> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| library("make random bytes"))?;
    Ok(Secret::new(bytes))
}

/// A fault of the cryptographic library, which says nothing more.
fn library(what: &str) -> Failure {
    Failure::new(Reason::Internal, format!("aws-lc could not {what}"))
}
