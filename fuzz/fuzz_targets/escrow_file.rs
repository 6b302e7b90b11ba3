//! An escrow as a file, and what opening it meets.

#![no_main]

use keyd_core::Secret;
use keyd_escrow::EscrowFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = EscrowFile::parse(bytes) {
        assert!(file.open(&Secret::new(vec![7; 32])).is_err());
    }
});
