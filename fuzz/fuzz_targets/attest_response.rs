//! A node's answer to its challenge.

#![no_main]

use std::sync::LazyLock;

use keyd_attest::wire::Public;
use keyd_attest::{AttestationKey, PcrSet, Response};
use libfuzzer_sys::fuzz_target;

/// The key that signed the seed.
static AK: LazyLock<AttestationKey> = LazyLock::new(|| {
    let public = Public::parse(include_bytes!("../corpus/tpmt_public/ak")).expect("a public area");
    AttestationKey::from_public(&public).expect("an attestation key")
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(response) = Response::decode(bytes) else { return };
    assert_eq!(response.encode(), bytes, "a response has one encoding");
    let pcrs = PcrSet::new([0, 7]).expect("PCRs exist");
    if AK.check(&response, &[7; 32], pcrs).is_ok() {
        assert_eq!(response.attest, include_bytes!("../corpus/tpms_attest/quote"), "a forged quote");
    }
});
