//! A server's challenge.

#![no_main]

use keyd_attest::Challenge;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(challenge) = Challenge::decode(bytes) {
        assert_eq!(challenge.encode(), bytes, "a challenge has one encoding");
    }
});
