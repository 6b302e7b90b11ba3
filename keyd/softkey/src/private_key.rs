//! What a private key of either implementation does.

use keyd_core::{Failure, Reason, Secret, SignInput};

/// An opened private key. Its caller has checked that the algorithm takes what is given.
pub(crate) trait PrivateKey: Send + Sync {
    /// The raw public key, as [`keyd_core::PublicKey::from_raw`] takes it.
    fn raw_public(&self) -> Vec<u8>;

    /// Signs, as [`crate::SoftKey::sign`].
    fn sign(&self, input: SignInput<'_>) -> Result<Vec<u8>, Failure>;

    /// Recovers a shared secret, as [`crate::SoftKey::decapsulate`].
    fn decapsulate(&self, _ciphertext: &[u8]) -> Result<Secret, Failure> {
        Err(Failure::new(Reason::Internal, "a ciphertext was let through to a key that signs"))
    }

    /// PKCS#8 DER, as [`crate::SoftKey::to_pkcs8`].
    fn to_pkcs8(&self) -> Result<Secret, Failure>;
}

/// What [`SignInput::check`] should have refused.
pub(crate) fn unfit() -> Failure {
    Failure::new(Reason::Internal, "an input was let through that the key does not sign")
}

/// Keys that decapsulate have no PKCS#8 here.
pub(crate) fn not_exported() -> Failure {
    Failure::new(Reason::BadRequest, "keys that decapsulate are not exported: no workload gets one")
}
