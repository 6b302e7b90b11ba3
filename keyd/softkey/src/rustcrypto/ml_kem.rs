//! ML-KEM (FIPS 203) by RustCrypto.

use keyd_core::{Failure, Secret, SignInput};
use ml_kem::kem::Decapsulate;
use ml_kem::{KeyExport, Seed};
use zeroize::Zeroizing;

use super::library;
use crate::private_key::{PrivateKey, not_exported, unfit};

/// A decapsulation key of one of the parameter sets.
pub(crate) struct MlKemKey<K>(K);

impl<K: From<Seed>> MlKemKey<K> {
    /// Expands the seed `d || z` of 64 bytes.
    pub(crate) fn from_seed(seed: &Secret) -> Result<Self, Failure> {
        let seed = Zeroizing::new(Seed::try_from(seed.expose()).map_err(|_| library("take an ML-KEM seed"))?);
        Ok(Self(K::from(*seed)))
    }
}

impl<K: Decapsulate + Send + Sync> PrivateKey for MlKemKey<K> {
    fn raw_public(&self) -> Vec<u8> {
        self.0.encapsulation_key().to_bytes().to_vec()
    }

    fn sign(&self, _input: SignInput<'_>) -> Result<Vec<u8>, Failure> {
        Err(unfit())
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret, Failure> {
        let shared = self.0.decapsulate_slice(ciphertext).map_err(|_| library("decapsulate with ML-KEM"))?;
        Ok(Secret::new(shared.to_vec()))
    }

    fn to_pkcs8(&self) -> Result<Secret, Failure> {
        Err(not_exported())
    }
}
