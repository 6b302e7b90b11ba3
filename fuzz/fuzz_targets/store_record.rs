//! A record of keyd's store.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyd_daemon::fuzzing::store_record("n/a", bytes));
