//! An EK certificate as a TPM's NV memory holds it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| keyd_tpm::fuzzing::stored_certificate(content));
