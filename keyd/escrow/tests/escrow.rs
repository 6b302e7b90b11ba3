//! The file and the operator's keys, by themselves.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;

use keyd_core::{Algorithm, Failure, Reason, Secret};
use keyd_escrow::{EscrowFile, EscrowedKey, FILE_LIMIT, OperatorKey, PEM_LIMIT, Recipient, seal};
use keyd_softkey::SoftKey;
use ml_kem::kem::TryDecapsulate;
use ml_kem::{DecapsulationKey1024, Seed};
use peers::openssl;
use proptest::prelude::*;

const NODE: &str = "edge-17";
/// Length of what stands before the seed in the operator's PKCS#8.
const SEED_AT: usize = 22;

fn key(name: &str, algorithm: Algorithm) -> EscrowedKey {
    let secret = SoftKey::generate_secret(algorithm).unwrap();
    let soft = SoftKey::from_secret(algorithm, &secret).unwrap();
    EscrowedKey::new(name.parse().unwrap(), 3, 1_800_000_000, &soft)
}

fn sample() -> (OperatorKey, Vec<EscrowedKey>, Vec<u8>) {
    let operator = OperatorKey::generate().unwrap();
    let keys: Vec<_> = Algorithm::ALL
        .into_iter()
        .filter(|algorithm| algorithm.modulus_bits().is_none_or(|bits| bits == 2048))
        .map(|algorithm| key(&format!("n/{algorithm}"), algorithm))
        .collect();
    let file = seal(&operator.recipient(), NODE, 1_900_000_000, &keys).unwrap();
    (operator, keys, file)
}

fn open(operator: &OperatorKey, file: &[u8]) -> Result<Vec<EscrowedKey>, Failure> {
    let file = EscrowFile::parse(file)?;
    Ok(file.open(&operator.unlock(&file)?)?)
}

fn refused(operator: &OperatorKey, file: &[u8]) -> Failure {
    open(operator, file).unwrap_err()
}

#[test]
fn every_key_comes_back_as_it_was() {
    let (operator, keys, file) = sample();
    let parsed = EscrowFile::parse(&file).unwrap();
    assert_eq!((parsed.header().node.as_str(), parsed.header().created_at), (NODE, 1_900_000_000));
    assert_eq!(parsed.header().keys as usize, keys.len());
    let opened = open(&operator, &file).unwrap();
    assert_eq!(opened.len(), keys.len());
    for (opened, key) in opened.iter().zip(&keys) {
        assert_eq!((opened.id(), opened.version(), opened.created_at()), (key.id(), 3, 1_800_000_000));
        assert_eq!(opened.public_key(), key.public_key());
        assert_eq!(opened.secret().expose(), key.secret().expose());
    }
    for key in &keys {
        let secret = key.secret().expose();
        assert!(!file.windows(secret.len()).any(|window| window == secret), "{key:?} stands in clear");
    }
}

#[test]
fn two_escrows_of_the_same_keys_have_nothing_secret_in_common() {
    let (operator, keys, file) = sample();
    let again = seal(&operator.recipient(), NODE, 1_900_000_000, &keys).unwrap();
    let unlocked = |file| operator.unlock(&EscrowFile::parse(file).unwrap()).unwrap();
    assert_ne!(unlocked(&file).expose(), unlocked(&again).expose());
    let parsed = EscrowFile::parse(&again).unwrap();
    assert_eq!(Failure::from(parsed.open(&unlocked(&file)).unwrap_err()).reason, Reason::Integrity);
}

#[test]
fn a_second_implementation_reaches_the_same_secret() {
    let (operator, keys, file) = sample();
    let pem = operator.to_pem().unwrap();
    let (_, der) = der::pem::decode_vec(pem.expose()).unwrap();
    let seed = Seed::try_from(&der[SEED_AT..]).unwrap();
    // The ciphertext is the last field of the header, which is followed by the keys and the tag.
    let parsed = EscrowFile::parse(&file).unwrap();
    let at = file.windows(3).position(|w| w == [0x32, 0xa0, 0x0c]).unwrap() + 3;
    let private = DecapsulationKey1024::from_seed(seed);
    let shared = private.try_decapsulate(file[at..at + 1568].try_into().unwrap()).unwrap();
    let opened = parsed.open(&Secret::new(shared.to_vec())).unwrap();
    assert_eq!(opened.len(), keys.len());
}

#[test]
fn openssl_reads_our_keys_and_we_read_its() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    openssl::run(&format!(
        "genpkey -algorithm ML-KEM-1024 -provparam ml-kem.output_formats=seed-only -out {}",
        path("private")
    ))
    .unwrap();
    let public = openssl::run(&format!("pkey -in {} -pubout", path("private"))).unwrap();
    let theirs = OperatorKey::from_pem(&Secret::new(fs::read(path("private")).unwrap())).unwrap();
    assert_eq!(theirs.recipient(), Recipient::from_pem(&public).unwrap());
    assert_eq!(theirs.recipient().to_pem().unwrap().as_bytes(), public);

    let ours = OperatorKey::generate().unwrap();
    fs::write(path("ours"), ours.to_pem().unwrap().expose()).unwrap();
    let public = openssl::run(&format!("pkey -in {} -pubout", path("ours"))).unwrap();
    assert_eq!(ours.recipient().to_pem().unwrap().as_bytes(), public);

    // What OpenSSL writes unless it is told otherwise has the expanded key in it too.
    openssl::run(&format!("genpkey -algorithm ML-KEM-1024 -out {}", path("both"))).unwrap();
    let e = OperatorKey::from_pem(&Secret::new(fs::read(path("both")).unwrap())).err().unwrap();
    assert!(e.to_string().contains("ml-kem.output_formats=seed-only"), "{e}");
}

#[test]
fn keys_of_another_kind_or_in_another_form_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for algorithm in ["ML-KEM-768", "ML-DSA-87", "EC -pkeyopt group:P-384"] {
        let out = dir.path().join("key").display().to_string();
        openssl::run(&format!("genpkey -algorithm {algorithm} -out {out}")).unwrap();
        let private = Secret::new(fs::read(&out).unwrap());
        assert!(OperatorKey::from_pem(&private).is_err(), "{algorithm}");
        let public = openssl::run(&format!("pkey -in {out} -pubout")).unwrap();
        assert!(Recipient::from_pem(&public).is_err(), "{algorithm}");
    }
    let operator = OperatorKey::generate().unwrap();
    let (private, public) = (operator.to_pem().unwrap(), operator.recipient().to_pem().unwrap());
    assert!(Recipient::from_pem(private.expose()).unwrap_err().to_string().contains("PRIVATE KEY"));
    assert!(OperatorKey::from_pem(&Secret::new(public.into_bytes())).is_err());
    assert!(Recipient::from_pem(&vec![b'-'; PEM_LIMIT + 1]).is_err());
    // An encapsulation key of coefficients beyond the modulus (FIPS 203 §7.2).
    let mut spki = vec![0xff; 1568 + 22];
    spki[..22].copy_from_slice(
        &hex::decode("30820632300b0609608648016503040403038206 2100".replace(' ', "")).unwrap(),
    );
    let pem = der::pem::encode_string("PUBLIC KEY", der::pem::LineEnding::LF, &spki).unwrap();
    let e = Recipient::from_pem(pem.as_bytes()).unwrap_err();
    assert!(e.to_string().contains("not a usable ml-kem-1024 key"), "{e}");
}

#[test]
fn a_wrong_operator_key_is_told_before_anything_is_tried() {
    let (_, _, file) = sample();
    let other = OperatorKey::generate().unwrap();
    let e = refused(&other, &file);
    assert_eq!(e.reason, Reason::BadRequest);
    assert!(e.message.contains(&hex::encode(other.recipient().fingerprint())), "{e}");
}

#[test]
fn a_file_that_was_cut_or_goes_on_is_refused() {
    let (operator, _, file) = sample();
    for len in (0..200).chain(1500..1700).chain(file.len() - 200..file.len()) {
        assert!(open(&operator, &file[..len]).is_err(), "{len} of {} bytes", file.len());
    }
    assert!(refused(&operator, &file[..file.len() - 1]).message.contains("it is not whole"));
    let longer = [file.as_slice(), &[0]].concat();
    assert!(refused(&operator, &longer).message.contains("it is not whole"));
    assert!(refused(&operator, &vec![0; FILE_LIMIT + 1]).message.contains("more than"));
    assert!(refused(&operator, b"").message.contains("no escrow"));
    let mut newer = file;
    newer[13] = 2;
    assert!(refused(&operator, &newer).message.contains("version 2"));
}

#[test]
fn no_name_makes_a_header_that_cannot_be_read_again() {
    let operator = OperatorKey::generate().unwrap();
    for name in ["", "two words", "\n", "ä", &"x".repeat(256)] {
        assert!(seal(&operator.recipient(), name, 0, &[]).is_err(), "{name:?}");
    }
    let file = seal(&operator.recipient(), &"x".repeat(255), i64::MIN, &[]).unwrap();
    assert_eq!(open(&operator, &file).unwrap().len(), 0);
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let operator = OperatorKey::generate().unwrap();
    let keys = [key("n/a", Algorithm::EcP256), key("n/a", Algorithm::EcP256)];
    let file = seal(&operator.recipient(), NODE, 0, &keys).unwrap();
    assert!(refused(&operator, &file).message.contains("stands twice"));
}

#[test]
fn no_single_bit_can_be_changed() {
    let operator = OperatorKey::generate().unwrap();
    let file = seal(&operator.recipient(), NODE, 0, &[key("n/a", Algorithm::MlDsa65)]).unwrap();
    let unlocked = operator.unlock(&EscrowFile::parse(&file).unwrap()).unwrap();
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            // With the secret of the right file at hand, which is more than who changed it has.
            let opened = EscrowFile::parse(&changed).and_then(|file| file.open(&unlocked));
            assert!(opened.is_err(), "bit {bit} of byte {at}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, version in 0..3u16) {
        let _ = EscrowFile::parse(&bytes);
        let begun = [b"keyd escrow\n".as_slice(), &version.to_be_bytes(), &bytes].concat();
        if let Ok(file) = EscrowFile::parse(&begun) {
            prop_assert!(file.open(&Secret::new(vec![7; 32])).is_err());
        }
    }
}
