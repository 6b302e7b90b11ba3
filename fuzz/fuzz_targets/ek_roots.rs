//! The file of authorities for endorsement keys.

#![no_main]

use keyd_attest::EkRoots;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pem: &[u8]| {
    let _ = EkRoots::from_pem(pem);
});
