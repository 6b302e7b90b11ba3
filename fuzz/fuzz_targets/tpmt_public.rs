//! TPMT_PUBLIC, and which keys are made of it.

#![no_main]

use keyd_attest::wire::Public;
use keyd_attest::{AttestationKey, EkKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(public) = Public::parse(bytes) else { return };
    assert_eq!(public.bytes(), bytes);
    let (ak, ek) = (AttestationKey::from_public(&public), EkKey::from_public(&public));
    assert!(ak.is_err() || ek.is_err(), "a key that attests and decrypts");
});
