//! The public key that signs PCR policies, in PEM.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyd_tpm::fuzzing::policy_key(bytes));
