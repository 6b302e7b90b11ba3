//! The keys in an escrow, as they are after it was opened.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keyd_escrow::fuzzing::contents(bytes));
