//! Each kind of record, as long as what is in it can be.

use keyd_audit::{
    Base64, Draft, Event, Files, KeyFacts, LINE_LIMIT, Log, Origin, Position, SEGMENT_LIMIT, Text, Verifier,
};
use keyd_core::{Algorithm, KeyId, Operation, Protection, Reason};

/// Length of a DER SubjectPublicKeyInfo with an ML-DSA-87 key, the audit key's algorithm (RFC 9881 §4), in bytes.
const SPKI_LEN: usize = 2614;
/// Length of an ML-DSA-87 signature (FIPS 204, table 2), in bytes.
const SIGNATURE_LEN: usize = 4627;
/// What the number of a record may grow to take, beyond what it takes in a new log, in bytes.
const GROWTH: usize = 20;

/// The longest id that a key can have.
fn key() -> KeyId {
    format!("{}/{}", "n".repeat(64), "k".repeat(128)).parse().unwrap()
}

/// A text that is longer in JSON than anywhere else, and longer than a line.
fn text() -> Text {
    Text::cut(&"\u{1}".repeat(LINE_LIMIT))
}

fn facts() -> KeyFacts {
    let (algorithm, protection) = (Algorithm::MlKem1024, Protection::HsmWrapped);
    KeyFacts { key: key(), algorithm, protection, version: u32::MAX, fingerprint: [255; 32] }
}

/// The event after another one, so that the compiler asks for each that is new.
fn after(event: &Event) -> Option<Event> {
    let bytes = |len| Base64(vec![255; len]);
    let protection = Protection::HsmWrapped;
    Some(match event {
        Event::Segment { .. } => Event::AuditKey { audit_key: bytes(SPKI_LEN), protection },
        Event::AuditKey { .. } => {
            Event::Checkpoint { through: u64::MAX, hash: [255; 48], signature: bytes(SIGNATURE_LEN) }
        }
        Event::Checkpoint { .. } => Event::LogRestarted { last: u64::MAX },
        Event::LogRestarted { .. } => Event::TailCut { bytes: u64::MAX, sha384: [255; 48] },
        Event::TailCut { .. } => Event::Started { version: "4294967295.4294967295.4294967295".to_owned() },
        Event::Started { .. } => Event::Stopped {},
        Event::Stopped {} => Event::PolicyReloaded {},
        Event::PolicyReloaded {} => Event::StoreAccepted { keys: u64::MAX },
        Event::StoreAccepted { .. } => Event::OrphanRemoved { object: text(), label: text() },
        Event::OrphanRemoved { .. } => Event::StorageRootMade { name: Some(text()) },
        Event::StorageRootMade { .. } => Event::KeyCreated(facts()),
        Event::KeyCreated(_) => Event::KeyRotated(facts()),
        Event::KeyRotated(_) => Event::KeyDeleted(facts()),
        Event::KeyDeleted(_) => Event::KeyMigrated(facts()),
        Event::KeyMigrated(_) => Event::KeyRestored(facts()),
        Event::KeyRestored(_) => {
            let namespace = Some(key().namespace);
            Event::EscrowExported { keys: u32::MAX, namespace, recipient: [255; 32] }
        }
        Event::EscrowExported { .. } => Event::EscrowOpened { node: text(), keys: u32::MAX, dry_run: false },
        Event::EscrowOpened { .. } => Event::KeyResealed(facts()),
        Event::KeyResealed(_) => Event::Fallback { key: key(), algorithm: Algorithm::MlKem1024, protection },
        Event::Fallback { .. } => Event::SealFailed { key: key(), protection },
        Event::SealFailed { .. } => Event::UnsealFailed { key: key(), count: u64::MAX },
        Event::UnsealFailed { .. } => {
            let (operation, namespace) = (Operation::Decapsulate, Some(key().namespace));
            Event::Denied { operation, namespace, count: u64::MAX }
        }
        Event::Denied { .. } => Event::AttestationBound { agent: text(), keys: vec!["f".repeat(64); 2] },
        Event::AttestationBound { .. } => Event::AttestationRedeemed { agent: text(), key: [255; 32] },
        Event::AttestationRedeemed { .. } => Event::CertificateIssued {
            key: key(),
            version: u32::MAX,
            serial: text(),
            spiffe_id: text(),
            ca: false,
            spki_sha256: [255; 32],
            not_after: i64::MIN,
        },
        Event::CertificateIssued { .. } => {
            Event::IssuanceRefused { key: key(), rule: text(), count: u64::MAX }
        }
        Event::IssuanceRefused { .. } => return None,
    })
}

fn every_event() -> impl Iterator<Item = Event> {
    let segment = Event::Segment { previous: [255; 48], audit_key: Some(Base64(vec![255; SPKI_LEN])) };
    std::iter::successors(Some(segment), after)
}

/// What failed for the reason with the longest name.
fn failed(event: Event) -> Draft {
    let reason = Reason::ALL.into_iter().max_by_key(|reason| reason.name().len()).unwrap();
    Draft::failed(Origin { uid: Some(u32::MAX), pid: Some(i32::MIN) }, event, reason)
}

/// What is owed is written before anything else: a record that does not fit would end the log.
#[test]
fn a_line_has_room_for_every_record_however_long_what_is_in_it() {
    for event in every_event() {
        let name = event.name();
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
        log.append(i64::MIN, &[failed(event)]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let chunk = Files::at(dir.path()).unwrap().read(Position::default()).unwrap();
        let longest = chunk.lines().map(<[u8]>::len).max().unwrap();
        assert!(longest + GROWTH < LINE_LIMIT, "{name}: {longest} bytes");
    }
}

#[test]
fn every_kind_of_record_is_read_as_it_was_written() {
    // Those that the chain itself is made of are read with it.
    let of_the_chain =
        |e: &Event| matches!(e, Event::Segment { .. } | Event::AuditKey { .. } | Event::Checkpoint { .. });
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
    let drafts: Vec<_> = every_event().filter(|event| !of_the_chain(event)).map(failed).collect();
    log.append(5, &drafts).unwrap();
    let chunk = Files::at(dir.path()).unwrap().read(Position::default()).unwrap();
    let mut verifier = Verifier::new(None);
    let records: Vec<_> = chunk.lines().map(|line| verifier.take(line).unwrap()).collect();
    assert_eq!(records.len(), drafts.len() + 1);
    for (record, draft) in records.iter().skip(1).zip(&drafts) {
        assert_eq!((&record.event, record.origin, record.result), (&draft.event, draft.origin, draft.result));
        let json = serde_json::to_value(record).unwrap();
        assert_eq!(json["event"], record.event.name());
    }
}
