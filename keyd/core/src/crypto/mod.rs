//! Who does the cryptography of public keys, hashes and random bytes: aws-lc-rs, or RustCrypto for a build without C.
//!
//! Each has the same functions. Those found here are aws-lc-rs's where it is built in, so that a build with both, as
//! tests have it, signs and verifies with what ships.

#[cfg(feature = "aws-lc-rs")]
pub mod aws_lc;
#[cfg(feature = "rustcrypto")]
pub mod rustcrypto;

#[cfg(feature = "aws-lc-rs")]
use aws_lc as chosen;
#[cfg(all(feature = "rustcrypto", not(feature = "aws-lc-rs")))]
use rustcrypto as chosen;

#[cfg(not(any(feature = "aws-lc-rs", feature = "rustcrypto")))]
compile_error!("keyd-core needs one of its features aws-lc-rs and rustcrypto");

pub use chosen::{digest, encapsulate, fill, verify};

use crate::{Algorithm, Failure, Reason};

/// Random bytes that the system did not give.
fn no_random_bytes() -> Failure {
    Failure::new(Reason::Internal, "the random number generator failed")
}

/// A key that FIPS 203 §7.2 refuses, or that is not of ML-KEM.
fn unusable(algorithm: Algorithm) -> Failure {
    Failure::new(
        Reason::BadRequest,
        format!("not a usable {algorithm} key: nothing can be encapsulated to it"),
    )
}
