//! What a PKCS#11 worker reads from keyd.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyd_pkcs11::fuzzing::frames_to_worker(bytes));
