//! Tokens older than PKCS#11 3.2, which know ML-DSA and ML-KEM by their vendor's numbers: kryoptic, with its numbers
//! changed by the shim.

use fault_shim::code::{
    CKA_PARAMETER_SET, CKK_ML_DSA, CKK_ML_KEM, CKM_ML_DSA, CKM_ML_DSA_KEY_PAIR_GEN, CKM_ML_KEM,
    CKM_ML_KEM_KEY_PAIR_GEN,
};
use fault_shim::{Faults, Renumbering};
use keyd_core::{Algorithm, Failure, Reason, Sealer, SignInput, Vault};
use keyd_pkcs11::{Mechanisms, TokenConfig, VendorNumbers};
use tempfile::TempDir;

use super::faults::behind_the_shim;
use super::{create, kryoptic, secret, sign, token};

const ML_DSA: [Algorithm; 3] = [Algorithm::MlDsa44, Algorithm::MlDsa65, Algorithm::MlDsa87];
const ML_KEM: [Algorithm; 2] = [Algorithm::MlKem768, Algorithm::MlKem1024];

const PARAMETER_SET: u32 = 0x8000_0001;

/// As the vendor's handbook has them.
fn numbers() -> Mechanisms {
    let numbers = |first| VendorNumbers {
        key_pair_gen: first,
        operation: first + 1,
        key_type: Some(first + 2),
        parameter_set: Some(PARAMETER_SET),
    };
    Mechanisms { ml_dsa: Some(numbers(0x8000_0100)), ml_kem: Some(numbers(0x8000_0200)) }
}

/// A fresh token that has `numbers` in place of the standard's, and a configuration that says nothing of them.
fn old(numbers: &Mechanisms) -> (TempDir, TokenConfig) {
    let (dir, config) = kryoptic();
    let faults = Faults::new(&dir.path().join("faults")).unwrap();
    let mut config = behind_the_shim(&faults, config);
    let mut changed = Renumbering::default();
    for (vendors, key_pair_gen, operation, key_type) in [
        (numbers.ml_dsa, CKM_ML_DSA_KEY_PAIR_GEN, CKM_ML_DSA, CKK_ML_DSA),
        (numbers.ml_kem, CKM_ML_KEM_KEY_PAIR_GEN, CKM_ML_KEM, CKK_ML_KEM),
    ] {
        let vendors = vendors.unwrap();
        changed.mechanisms.push((key_pair_gen, vendors.key_pair_gen.into()));
        changed.mechanisms.push((operation, vendors.operation.into()));
        changed.key_types.extend(vendors.key_type.map(|number| (key_type, number.into())));
        // Both have the same.
        changed.attributes =
            vendors.parameter_set.map(|n| (CKA_PARAMETER_SET, n.into())).into_iter().collect();
    }
    config.environment.extend(changed.environment());
    (dir, config)
}

#[track_caller]
fn unavailable<T: std::fmt::Debug>(result: Result<T, Failure>) {
    assert_eq!(result.unwrap_err().reason, Reason::ProtectionUnavailable);
}

#[tokio::test]
async fn keys_are_made_and_used_by_the_numbers_of_the_table() {
    let mut standard = numbers();
    for numbers in [&mut standard.ml_dsa, &mut standard.ml_kem].into_iter().flatten() {
        (numbers.key_type, numbers.parameter_set) = (None, None);
    }
    // A vendor's key type and attribute, or the standard's.
    for numbers in [numbers(), standard] {
        let (_dir, mut config) = old(&numbers);
        config.mechanisms = numbers;
        let token_now = token(&config);
        let (mut signers, mut openers) = (Vec::new(), Vec::new());
        for algorithm in ML_DSA {
            assert!(token_now.supports(algorithm).await.unwrap(), "{algorithm}");
            signers.push(create(&token_now, algorithm).await);
        }
        for algorithm in ML_KEM {
            assert!(token_now.supports(algorithm).await.unwrap(), "{algorithm}");
            openers.push(create(&token_now, algorithm).await);
        }
        // A new worker searches them by their type.
        for token in [token_now, token(&config)] {
            for key in &signers {
                sign(&token, key, b"m").await;
            }
            for key in &openers {
                let (ciphertext, sent) = key.public_key.encapsulate().unwrap();
                let algorithm = key.public_key.algorithm();
                let opened = token.decapsulate(&key.handle, algorithm, &ciphertext).await.unwrap();
                assert_eq!(opened.expose(), sent.expose(), "{algorithm}");
            }
        }
        let token = token(&config);
        for key in signers.iter().chain(&openers) {
            token.delete(&key.handle).await.unwrap();
        }
        assert_eq!(token.list_objects().await.unwrap(), []);
    }
}

#[tokio::test]
async fn without_the_table_it_is_a_token_without_ml_dsa() {
    let (_dir, config) = old(&numbers());
    let token = token(&config);
    for algorithm in ML_DSA.into_iter().chain(ML_KEM) {
        assert!(!token.supports(algorithm).await.unwrap(), "{algorithm}");
        unavailable(token.create(&"n/a".parse().unwrap(), algorithm).await);
    }
    assert_eq!(token.list_objects().await.unwrap(), []);
    // What else it knows, it does.
    let key = create(&token, Algorithm::EcP256).await;
    sign(&token, &key, b"m").await;
    token.seal(&secret("seed"), b"c").await.unwrap();
}

#[tokio::test]
async fn a_key_of_the_vendors_type_is_not_found_without_the_table() {
    let (_dir, without) = old(&numbers());
    let with = TokenConfig { mechanisms: numbers(), ..without.clone() };
    let key = create(&token(&with), Algorithm::MlDsa65).await;
    let input = SignInput::Message(b"m");
    let lost = token(&without).sign(&key.handle, Algorithm::MlDsa65, input).await.unwrap_err();
    assert_eq!(lost.reason, Reason::KeyNotFound, "{lost}");
    sign(&token(&with), &key, b"m").await;
}

#[tokio::test]
async fn a_table_that_is_wrong_makes_no_such_keys() {
    // Those of another vendor, and of a token that has the standard's.
    let wrong = |numbers: VendorNumbers| VendorNumbers {
        key_pair_gen: numbers.key_pair_gen + 0x1000,
        operation: numbers.operation + 0x1000,
        ..numbers
    };
    for (_dir, mut config) in [old(&numbers()), kryoptic()] {
        config.mechanisms = Mechanisms { ml_dsa: numbers().ml_dsa.map(wrong), ml_kem: numbers().ml_kem };
        let kem = config.module == fault_shim::module().unwrap();
        let token = token(&config);
        assert!(!token.supports(Algorithm::MlDsa65).await.unwrap());
        assert_eq!(token.supports(Algorithm::MlKem768).await.unwrap(), kem);
        unavailable(token.create(&"n/a".parse().unwrap(), Algorithm::MlDsa65).await);
        assert_eq!(token.list_objects().await.unwrap(), []);
    }
}
