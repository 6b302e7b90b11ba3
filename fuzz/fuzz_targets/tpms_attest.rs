//! TPMS_ATTEST.

#![no_main]

use keyd_attest::wire::Attest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Attest::parse(bytes);
});
