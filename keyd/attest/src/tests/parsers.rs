use proptest::prelude::*;

use super::*;
use crate::wire::{Attest, Public, Signature};
use crate::{Challenge, Response, certified_key};

#[test]
fn messages_that_are_not_canonical_are_refused() {
    let tpm = SoftTpm::new(Ek::P256);
    let (_, bytes) = node::begin(&payload(&tpm));
    assert_eq!(Payload::decode(&bytes).unwrap(), payload(&tpm));

    let unknown_field = [&bytes[..], &[0x78, 1]].concat();
    let version_twice = [&[8, 1], &bytes[..]].concat();
    let long_varint = [&[8, 0x81, 0], &bytes[2..]].concat();
    for odd in [unknown_field, version_twice, long_varint] {
        assert!(matches!(Payload::decode(&odd), Err(Refusal::Message { .. })));
    }
    let other_version = [&[8, 2], &bytes[2..]].concat();
    assert!(matches!(Payload::decode(&other_version), Err(Refusal::Version { version: 2, .. })));
    assert!(matches!(Payload::decode(&vec![0; crate::MESSAGE_LIMIT + 1]), Err(Refusal::TooLong { .. })));
}

#[test]
fn a_payload_names_one_or_two_keys() {
    let tpm = SoftTpm::new(Ek::P256);
    for (count, taken) in [(0, false), (1, true), (2, true), (3, false)] {
        let payload = Payload::new(None, tpm.ek_public(), &tpm.ak_public(), vec![KEY; count]);
        assert_eq!(payload.is_ok(), taken, "{count}");
    }
}

#[test]
fn a_challenge_names_pcrs_that_exist_in_ascending_order() {
    let tpm = SoftTpm::new(Ek::P256);
    let (_, bytes) =
        verifier(&manifest(&tpm)).begin(&payload(&tpm), at(0), Fresh::generate().unwrap()).unwrap();
    let (rest, pcrs) = bytes.split_at(bytes.len() - 4);
    assert_eq!(pcrs, [0x2a, 2, 0, 7]);
    for odd in [[0x2a, 2, 7, 0].as_slice(), &[0x2a, 2, 7, 7], &[0x2a, 2, 0, 24], &[]] {
        assert!(Challenge::decode(&[rest, odd].concat()).is_err(), "{odd:?}");
    }
}

#[test]
fn structures_cut_short_or_going_on_are_refused() {
    let tpm = SoftTpm::new(Ek::P256);
    let request = node::QuoteRequest { pcrs: vec![0, 7], qualifying_data: vec![1; 32] };
    let (attest, signature, _) = tpm.quote(&request);
    type Parse = fn(&[u8]) -> Option<Refusal>;
    let parsers: [(&[u8], Parse); 3] = [
        (&tpm.ek_public(), |b| Public::parse(b).err()),
        (&attest, |b| Attest::parse(b).err()),
        (&signature, |b| Signature::parse(b).err()),
    ];
    for (bytes, parse) in parsers {
        assert!(parse(bytes).is_none());
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len]).is_some(), "{len} of {}", bytes.len());
        }
        assert!(matches!(parse(&[bytes, &[0]].concat()), Some(Refusal::Trailing { .. })));
    }
}

#[test]
fn sha1_is_refused_wherever_it_may_stand() {
    let tpm = SoftTpm::new(Ek::P256);
    let sha1 = [0, 4];
    let mut name_hash = tpm.ak_public();
    name_hash[2..4].copy_from_slice(&sha1);
    let mut scheme = tpm.ak_public();
    scheme[14..16].copy_from_slice(&sha1);
    for public in [name_hash, scheme] {
        assert!(matches!(Public::parse(&public), Err(Refusal::Sha1 { .. })));
    }
    let mut signature = tpm.sign(b"m");
    signature[2..4].copy_from_slice(&sha1);
    assert!(matches!(Signature::parse(&signature), Err(Refusal::Sha1 { .. })));
}

proptest! {
    #[test]
    fn no_parser_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Public::parse(&bytes);
        let _ = Attest::parse(&bytes);
        let _ = Signature::parse(&bytes);
        let _ = Payload::decode(&bytes);
        let _ = Challenge::decode(&bytes);
        let _ = Response::decode(&bytes);
        let _ = certified_key(&bytes);
        let _ = EkRoots::from_pem(&bytes);
        let _ = Manifest::parse_all("fuzz", &String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_parser_panics_on_changed_structures(at in 0usize..200, to in any::<u8>()) {
        let tpm = SoftTpm::new(Ek::P256);
        let request = node::QuoteRequest { pcrs: vec![0, 7], qualifying_data: vec![1; 32] };
        let (mut attest, mut signature, values) = tpm.quote(&request);
        let mut response = Response { attest: attest.clone(), signature: signature.clone(), pcrs: values }.encode();
        let (mut public, mut payload) = (tpm.ek_public(), payload(&tpm).encode());
        for bytes in [&mut attest, &mut signature, &mut response, &mut public, &mut payload] {
            let index = at % bytes.len();
            bytes[index] = to;
        }
        let _ = Attest::parse(&attest);
        let _ = Signature::parse(&signature);
        let _ = Response::decode(&response);
        let _ = Public::parse(&public);
        let _ = Payload::decode(&payload);
    }
}
