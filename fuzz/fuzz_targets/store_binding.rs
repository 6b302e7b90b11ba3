//! What binds the store to a counter in the TPM.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyd_daemon::fuzzing::store_binding(bytes));
