//! TPMT_SIGNATURE.

#![no_main]

use keyd_attest::wire::Signature;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Signature::parse(bytes);
});
