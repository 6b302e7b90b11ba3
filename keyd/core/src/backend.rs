//! The two kinds of place where a private key can live.
//!
//! A [`Vault`] makes keys and uses them; they never come out. A [`Sealer`] keeps a small secret unreadable at
//! rest and gives it back to this machine alone; the key is then used in software. A backend is one, the other,
//! or both, and knows nothing of namespaces, policy or the store.

use std::future::Future;
use std::pin::Pin;

use crate::{Algorithm, Failure, KeyId, PublicKey, Secret, SignInput};

/// A boxed future, so that backends can be chosen at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A key made in a [`Vault`].
#[derive(Clone, Debug)]
pub struct VaultKey {
    /// What finds the key again after a restart (for a token the CKA_ID); opaque, no secret.
    pub handle: Vec<u8>,
    /// Its public key.
    pub public_key: PublicKey,
}

/// A private key that a [`Vault`] holds, whether keyd knows of it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldKey {
    /// As in [`VaultKey`].
    pub handle: Vec<u8>,
    /// What it was labelled with when it was made: the key id.
    pub label: String,
}

/// Where private keys are made and stay.
pub trait Vault: Send + Sync {
    /// Whether keys of this algorithm can be made and used here.
    ///
    /// # Errors
    /// The device could not be asked.
    fn supports(&self, algorithm: Algorithm) -> BoxFuture<'_, Result<bool, Failure>>;

    /// Makes a key. `id` only labels it, for the operator who lists the token with other tools.
    fn create<'a>(&'a self, id: &'a KeyId, algorithm: Algorithm) -> BoxFuture<'a, Result<VaultKey, Failure>>;

    /// Signs: raw bytes for ML-DSA and RSA, DER `ECDSA-Sig-Value` for elliptic curves.
    fn sign<'a>(
        &'a self,
        handle: &'a [u8],
        algorithm: Algorithm,
        input: SignInput<'a>,
    ) -> BoxFuture<'a, Result<Vec<u8>, Failure>>;

    /// Recovers the shared secret of [`crate::SHARED_SECRET_LEN`] bytes from an ML-KEM ciphertext (FIPS 203 §7.3). A
    /// ciphertext that was made for another key gives a secret all the same, which is nobody else's.
    fn decapsulate<'a>(
        &'a self,
        handle: &'a [u8],
        algorithm: Algorithm,
        ciphertext: &'a [u8],
    ) -> BoxFuture<'a, Result<Secret, Failure>>;

    /// All private keys of keyd's that the device holds, to be compared with keyd's own records.
    fn private_keys(&self) -> BoxFuture<'_, Result<Vec<HeldKey>, Failure>>;

    /// Destroys the key. One that is gone already is no error.
    fn delete<'a>(&'a self, handle: &'a [u8]) -> BoxFuture<'a, Result<(), Failure>>;

    /// How the device is, without waiting long for it.
    fn health(&self) -> BoxFuture<'_, Health>;
}

/// What keeps a secret of at most 64 bytes unreadable at rest.
pub trait Sealer: Send + Sync {
    /// Seals `secret` into an opaque blob. `context` (such as the key id) is bound where the device can bind it.
    fn seal<'a>(&'a self, secret: &'a Secret, context: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>>;

    /// Opens a blob that [`Sealer::seal`] gave with the same `context`.
    fn unseal<'a>(&'a self, blob: &'a [u8], context: &'a [u8]) -> BoxFuture<'a, Result<Secret, Failure>>;

    /// How the device is, without waiting long for it.
    fn health(&self) -> BoxFuture<'_, Health>;
}

/// How a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What it is, as `token "field-kit" (kryoptic)`.
    pub device: String,
    /// Whether it serves.
    pub state: HealthState,
    /// A sentence: what is wrong and what to do, or what it can do.
    pub detail: String,
}

/// Whether a device serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// It serves.
    Ok,
    /// It cannot be reached, or fails.
    Absent,
    /// It is another one than the one that was enrolled.
    Replaced,
    /// It refused the PIN, or is in lockout; it is left alone.
    LockedOut,
}

impl HealthState {
    /// The name that `keyd status` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Absent => "absent",
            Self::Replaced => "replaced",
            Self::LockedOut => "locked out",
        }
    }
}
