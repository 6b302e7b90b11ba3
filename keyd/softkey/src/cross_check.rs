//! aws-lc-rs and RustCrypto against each other, through the functions that both have. What each makes of the Wycheproof
//! vectors by itself is seen by the tests in `tests/`, which run in a build of each.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair};
use keyd_core::crypto::{aws_lc as aws_lc_core, rustcrypto as rustcrypto_core};
use keyd_core::{Algorithm, Family, Hash, Reason, RsaPadding, Secret, SignInput};
use p256::pkcs8::DecodePrivateKey;
use proptest::prelude::*;

use crate::{SoftKey, aws_lc, rustcrypto};

const HASHES: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

/// Both verifications must say the same.
fn verifies(algorithm: Algorithm, raw: &[u8], input: SignInput<'_>, signature: &[u8]) -> bool {
    let both = [aws_lc_core::verify, rustcrypto_core::verify]
        .map(|verify| verify(algorithm, raw, input, signature).is_ok());
    assert_eq!(both[0], both[1], "{algorithm} {input:?}");
    both[0]
}

fn agree_on(algorithm: Algorithm, secret: &Secret, message: &[u8]) {
    let keys = [aws_lc::open, rustcrypto::open].map(|open| open(algorithm, secret).unwrap());
    let raw = keys[0].raw_public();
    assert_eq!(keys[1].raw_public(), raw, "{algorithm}: one secret, one key");
    for key in keys {
        let mut inputs = vec![(SignInput::Message(message), SignInput::Message(b"another message"))];
        let digests = HASHES.map(|hash| (hash, hash.digest(message), vec![0; hash.digest_len()]));
        if algorithm.family() == Family::Ec {
            inputs.extend(digests.iter().map(|(hash, digest, other)| {
                (SignInput::Digest { hash: *hash, digest }, SignInput::Digest { hash: *hash, digest: other })
            }));
        }
        for (input, other) in inputs {
            let mut signature = key.sign(input).unwrap();
            assert!(verifies(algorithm, &raw, input, &signature), "{algorithm} {input:?}");
            assert!(!verifies(algorithm, &raw, other, &signature));
            let middle = signature.len() / 2;
            signature[middle] ^= 1;
            assert!(!verifies(algorithm, &raw, input, &signature));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn each_verifies_what_the_other_signs_with_the_same_key(
        mut secret in prop::collection::vec(any::<u8>(), 48),
        message: Vec<u8>,
    ) {
        // A scalar is positive and below its curve's order.
        secret[0] = (secret[0] & 0x7f) | 1;
        for algorithm in Algorithm::ALL.into_iter().filter(|a| a.signs_messages()) {
            let length = algorithm.secret_len().unwrap();
            agree_on(algorithm, &Secret::new(secret[..length].to_vec()), &message);
        }
    }
}

#[test]
fn keys_that_one_makes_are_the_others_too() {
    for algorithm in [Algorithm::EcP256, Algorithm::EcP384] {
        for generate_secret in [aws_lc::generate_secret, rustcrypto::generate_secret] {
            agree_on(algorithm, &generate_secret(algorithm).unwrap(), b"message");
        }
    }
}

fn pkcs8_of_both(algorithm: Algorithm) -> [Vec<u8>; 2] {
    let secret = Secret::new(vec![7; algorithm.secret_len().unwrap()]);
    [aws_lc::open, rustcrypto::open]
        .map(|open| open(algorithm, &secret).unwrap().to_pkcs8().unwrap().expose().to_vec())
}

#[test]
fn pkcs8_of_ml_dsa_is_the_same_to_the_byte() {
    for algorithm in Algorithm::ALL.into_iter().filter(|a| a.is_ml_dsa()) {
        let [one, other] = pkcs8_of_both(algorithm);
        assert_eq!(one, other, "{algorithm}");
    }
}

#[test]
fn pkcs8_of_an_elliptic_curve_is_the_same_key_to_the_other() {
    // They differ in the public key, which RFC 5915 §3 lets them leave out.
    let [one, other] = pkcs8_of_both(Algorithm::EcP256);
    assert_eq!(p256::SecretKey::from_pkcs8_der(&one).unwrap().to_bytes()[..], [7; 32]);
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &other).unwrap();
    let [one, other] = pkcs8_of_both(Algorithm::EcP384);
    assert_eq!(p384::SecretKey::from_pkcs8_der(&one).unwrap().to_bytes()[..], [7; 48]);
    EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &other).unwrap();
}

#[test]
fn each_opens_what_the_other_encapsulates_and_rejects_alike() {
    for algorithm in [Algorithm::MlKem768, Algorithm::MlKem1024] {
        for _ in 0..16 {
            let seed = SoftKey::generate_secret(algorithm).unwrap();
            let [one, other] = [aws_lc::open, rustcrypto::open].map(|open| open(algorithm, &seed).unwrap());
            let raw = one.raw_public();
            assert_eq!(other.raw_public(), raw);
            for encapsulate in [aws_lc_core::encapsulate, rustcrypto_core::encapsulate] {
                let (mut ciphertext, secret) = encapsulate(algorithm, &raw).unwrap();
                assert_eq!(one.decapsulate(&ciphertext).unwrap().expose(), secret.expose());
                assert_eq!(other.decapsulate(&ciphertext).unwrap().expose(), secret.expose());

                // Implicit rejection (FIPS 203 §6.3) follows from seed and ciphertext alone.
                ciphertext[7] ^= 1;
                let rejected = one.decapsulate(&ciphertext).unwrap();
                assert_ne!(rejected.expose(), secret.expose());
                assert_eq!(other.decapsulate(&ciphertext).unwrap().expose(), rejected.expose());
            }
        }
    }
}

#[test]
fn rsa_signatures_of_aws_lc_verify_by_rustcrypto_which_holds_no_such_key_itself() {
    for algorithm in [Algorithm::Rsa2048, Algorithm::Rsa3072, Algorithm::Rsa4096] {
        let secret = aws_lc::generate_secret(algorithm).unwrap();
        let key = aws_lc::open(algorithm, &secret).unwrap();
        let raw = key.raw_public();
        for hash in HASHES {
            let digest = hash.digest(b"message");
            let [pkcs1, pss] = [RsaPadding::Pkcs1v15, RsaPadding::Pss].map(|padding| SignInput::RsaDigest {
                padding,
                hash,
                digest: &digest,
            });
            for (input, other) in [(pkcs1, pss), (pss, pkcs1)] {
                let signature = key.sign(input).unwrap();
                assert!(verifies(algorithm, &raw, input, &signature));
                assert!(!verifies(algorithm, &raw, other, &signature), "another padding");
            }
        }
        let refusals =
            [rustcrypto::generate_secret(algorithm).err(), rustcrypto::open(algorithm, &secret).err()];
        for refused in refusals {
            assert_eq!(refused.unwrap().reason, Reason::ProtectionUnavailable);
        }
    }
}

#[test]
fn with_both_built_in_aws_lc_signs_and_verifies() {
    use std::any::type_name_of_val;
    assert!(type_name_of_val(&crate::chosen::open).starts_with("keyd_softkey::aws_lc::"));
    assert!(type_name_of_val(&keyd_core::crypto::verify).starts_with("keyd_core::crypto::aws_lc::"));
}

#[test]
fn hashes_are_the_same_however_a_message_is_cut() {
    for hash in HASHES {
        let whole = aws_lc_core::digest(hash, &[b"one", b"", b"another"]);
        assert_eq!(whole.len(), hash.digest_len());
        assert_eq!(rustcrypto_core::digest(hash, &[b"oneano", b"ther"]), whole);
    }
}

#[test]
fn neither_gives_the_same_random_bytes_twice() {
    for fill in [aws_lc_core::fill, rustcrypto_core::fill] {
        let mut drawn = [[0; 32]; 2];
        drawn.iter_mut().for_each(|bytes| fill(bytes).unwrap());
        assert!(drawn[0] != drawn[1] && drawn[0] != [0; 32]);
    }
}
