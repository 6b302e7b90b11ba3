//! A file of signed PCR policies, as an image ships it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyd_tpm::fuzzing::signed_policy(bytes));
