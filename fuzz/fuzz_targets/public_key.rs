//! A SubjectPublicKeyInfo.

#![no_main]

use keyd_core::{PublicKey, SignInput};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    if let Ok(key) = PublicKey::from_spki(der) {
        assert_eq!(key.spki(), der, "a key has one encoding");
        assert!(key.verify(SignInput::Message(b"message"), b"signature").is_err());
    }
});
