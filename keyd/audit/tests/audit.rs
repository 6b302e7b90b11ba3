//! The audit log: what holds, and what is found.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "audit/chain.rs"]
mod chain;
#[path = "audit/files.rs"]
mod files;
#[path = "audit/records.rs"]
mod records;

use keyd_audit::{Base64, Draft, Event, Head, KeyFacts, Log, Origin, checkpoint_message};
use keyd_core::{Algorithm, Protection, SignInput};
use keyd_softkey::SoftKey;

fn new_key() -> SoftKey {
    let algorithm = Algorithm::MlDsa87;
    SoftKey::from_secret(algorithm, &SoftKey::generate_secret(algorithm).unwrap()).unwrap()
}

fn created(number: u32) -> Draft {
    let origin = Origin { uid: Some(number), pid: Some(1) };
    Draft::done(
        origin,
        Event::KeyCreated(KeyFacts {
            key: format!("n/key-{number}").parse().unwrap(),
            algorithm: Algorithm::MlDsa65,
            protection: Protection::Hsm,
            version: 1,
            fingerprint: [7; 32],
        }),
    )
}

fn audit_key(key: &SoftKey) -> Draft {
    let audit_key = Base64(key.public_key().spki().to_vec());
    Draft::done(Origin::KEYD, Event::AuditKey { audit_key, protection: Protection::Software })
}

fn checkpoint(key: &SoftKey, through: Head) -> Draft {
    let signature = key.sign(SignInput::Message(&checkpoint_message(&through))).unwrap();
    let event = Event::Checkpoint { through: through.seq, hash: through.hash, signature: Base64(signature) };
    Draft::done(Origin::KEYD, event)
}

/// Appends `records` keys, with a checkpoint after the half and one at the end.
fn fill(log: &mut Log, key: &SoftKey, records: u32) {
    if log.audit_key().is_none() {
        log.append(0, &[audit_key(key)]).unwrap();
    }
    for number in 0..records {
        log.append(i64::from(number), &[created(number)]).unwrap();
        if number == records / 2 || number + 1 == records {
            log.append(i64::from(number), &[checkpoint(key, log.head())]).unwrap();
        }
    }
}
