//! What keyd reads from a PKCS#11 worker.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyd_pkcs11::fuzzing::frames_from_worker(bytes));
