//! The first message of an attestation, and the challenge that a server makes for the TPM in it.

#![no_main]

use keyd_attest::{AttestationKey, Credential, Payload};
use keyd_core::Secret;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(payload) = Payload::decode(bytes) else { return };
    assert_eq!(payload.encode(), bytes, "a payload has one encoding");
    if let Ok(ak) = AttestationKey::from_public(&payload.ak) {
        let _ = Credential::make(&payload.ek, ak.name(), &Secret::new(vec![7; 32]));
    }
});
