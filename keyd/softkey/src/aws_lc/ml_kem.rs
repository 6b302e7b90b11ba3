//! ML-KEM (FIPS 203). aws-lc-rs takes no seed, so RustCrypto expands it; aws-lc then meets the ciphertexts.

use aws_lc_rs::kem::{self, DecapsulationKey};
use keyd_core::{Algorithm, Failure, Reason, Secret, SignInput};
#[expect(deprecated, reason = "the one form in which aws-lc-rs takes a private key")]
use ml_kem::ExpandedKeyEncoding;
use ml_kem::kem::Decapsulator;
use ml_kem::{DecapsulationKey768, DecapsulationKey1024, KeyExport as _, Seed};
use zeroize::Zeroizing;

use super::library;
use crate::private_key::{PrivateKey, not_exported, unfit};

pub(crate) struct MlKemKey {
    private: DecapsulationKey,
    public: Vec<u8>,
}

impl MlKemKey {
    /// Expands the seed `d || z` of 64 bytes.
    pub(crate) fn from_seed(algorithm: Algorithm, seed: &Secret) -> Result<Self, Failure> {
        let seed = Zeroizing::new(Seed::try_from(seed.expose()).map_err(|_| library("take an ML-KEM seed"))?);
        match algorithm {
            Algorithm::MlKem768 => expand(&DecapsulationKey768::from_seed(*seed), &kem::ML_KEM_768),
            Algorithm::MlKem1024 => expand(&DecapsulationKey1024::from_seed(*seed), &kem::ML_KEM_1024),
            other => Err(Failure::new(Reason::Internal, format!("{other} is not ML-KEM"))),
        }
    }
}

impl PrivateKey for MlKemKey {
    fn raw_public(&self) -> Vec<u8> {
        self.public.clone()
    }

    fn sign(&self, _input: SignInput<'_>) -> Result<Vec<u8>, Failure> {
        Err(unfit())
    }

    fn decapsulate(&self, ciphertext: &[u8]) -> Result<Secret, Failure> {
        let shared =
            self.private.decapsulate(ciphertext.into()).map_err(|_| library("decapsulate with ML-KEM"))?;
        Ok(Secret::new(shared.as_ref().to_vec()))
    }

    fn to_pkcs8(&self) -> Result<Secret, Failure> {
        Err(not_exported())
    }
}

#[expect(deprecated, reason = "the one form in which aws-lc-rs takes a private key")]
fn expand<K: ExpandedKeyEncoding + Decapsulator>(
    key: &K,
    algorithm: &'static kem::Algorithm,
) -> Result<MlKemKey, Failure> {
    let expanded = Zeroizing::new(key.to_expanded_bytes());
    let private = DecapsulationKey::new(algorithm, &expanded).map_err(|_| library("take an ML-KEM key"))?;
    Ok(MlKemKey { private, public: key.encapsulation_key().to_bytes().to_vec() })
}
