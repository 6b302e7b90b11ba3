//! What the TPM sealed, as it lies in the store.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyd_tpm::fuzzing::sealed_blob(bytes));
