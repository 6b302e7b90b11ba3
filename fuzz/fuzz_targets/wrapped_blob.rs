//! What a token wrapped, as it lies in the store.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyd_pkcs11::fuzzing::wrapped_blob(bytes));
