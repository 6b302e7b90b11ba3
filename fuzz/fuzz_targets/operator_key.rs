//! The operator's keys in PEM.

#![no_main]

use keyd_core::Secret;
use keyd_escrow::{OperatorKey, Recipient};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(recipient) = Recipient::from_pem(bytes) {
        let written = recipient.to_pem().expect("what was read can be written");
        assert_eq!(Recipient::from_pem(written.as_bytes()).ok(), Some(recipient));
    }
    if let Ok(key) = OperatorKey::from_pem(&Secret::new(bytes.to_vec())) {
        let written = key.to_pem().expect("what was read can be written");
        assert!(OperatorKey::from_pem(&written).is_ok_and(|again| again.recipient() == key.recipient()));
    }
});
