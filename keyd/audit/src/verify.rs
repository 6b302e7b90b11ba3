//! Verifying a chain, line by line.

use std::collections::VecDeque;

use keyd_core::{PublicKey, SignInput};

use crate::chain::{self, Hash, Head};
use crate::{Event, Record, checkpoint_message};

/// A chain as far as it was read.
#[derive(Debug)]
pub struct Verifier {
    /// The key that checkpoints must be signed by, where it is known from elsewhere.
    pinned: Option<PublicKey>,
    /// The key that the log itself names.
    named: Option<PublicKey>,
    /// A record that is known from elsewhere.
    expected: Option<Head>,
    head: Option<Head>,
    first: u64,
    /// Hashes of the records after `signed_through`, in order.
    unsigned: VecDeque<Hash>,
    signed_through: u64,
    newest: i64,
    clock_set_back: u64,
    tails_cut: u64,
}

/// What was found of a chain that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Number of the first record; more than 1 where earlier files were moved away.
    pub first: u64,
    /// The last record.
    pub last: Head,
    /// The last record that a checkpoint covers; 0 for none.
    pub signed_through: u64,
    /// The audit key, where the log names one or it was given.
    pub audit_key: Option<PublicKey>,
    /// How often the clock went back between two records.
    pub clock_set_back: u64,
    /// How many torn tails were cut off after crashes.
    pub tails_cut: u64,
}

/// The first record that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {record}: {why}")]
pub struct Broken {
    /// Its number in the order in which records should stand.
    pub record: u64,
    /// What is wrong.
    pub why: String,
}

impl Verifier {
    /// A verifier of a log whose checkpoints must be signed by `audit_key`; without it, by the key that the log names.
    pub fn new(audit_key: Option<PublicKey>) -> Self {
        Self {
            pinned: audit_key,
            named: None,
            expected: None,
            head: None,
            first: 0,
            unsigned: VecDeque::new(),
            signed_through: 0,
            newest: i64::MIN,
            clock_set_back: 0,
            tails_cut: 0,
        }
    }

    /// The same, where this record must stand: keyd's own word for how the log went on.
    #[must_use]
    pub fn expecting(mut self, record: Option<Head>) -> Self {
        self.expected = record.filter(|head| head.seq > 0);
        self
    }

    /// Takes the next line, without its end.
    ///
    /// # Errors
    /// The record does not hold. Nothing after it can be judged.
    pub fn take(&mut self, line: &[u8]) -> Result<Record, Broken> {
        let expected = self.head.map_or(1, |head| head.seq.saturating_add(1));
        let broken = |why: String| Broken { record: expected, why };
        let (hash, body, record) = chain::read(line).map_err(broken)?;
        let before = match (self.head, &record.event) {
            (Some(head), Event::Segment { previous, .. }) if *previous != head.hash => {
                return Err(broken("it begins a file that does not follow the one before".to_owned()));
            }
            (Some(head), _) => head,
            // Where earlier files were moved away, the first one that is left says what it follows.
            (None, Event::Segment { previous, .. }) if record.seq > 0 => {
                self.first = record.seq;
                self.signed_through = record.seq - 1;
                Head { seq: record.seq - 1, hash: *previous }
            }
            (None, _) => return Err(broken("the first record of a file must be a segment's".to_owned())),
        };
        if record.seq != before.seq.saturating_add(1) {
            return Err(broken(format!("record {} stands in its place", record.seq)));
        }
        let head = before.next(record.seq, body);
        if head.hash != hash || (record.seq == 1 && before.hash != Head::START.hash) {
            return Err(Broken {
                record: record.seq,
                why: "its hash is not that of its content and the record before it: one of them was changed"
                    .to_owned(),
            });
        }
        if self.expected.is_some_and(|known| known.seq == head.seq && known.hash != head.hash) {
            let why = "another record of this number was there before".to_owned();
            return Err(Broken { record: record.seq, why });
        }
        self.head = Some(head);
        self.unsigned.push_back(hash);
        self.judge(&record).map_err(|why| Broken { record: record.seq, why })?;
        Ok(record)
    }

    /// What was found, once there are no more lines; a chain without a record has 0 as its first.
    ///
    /// # Errors
    /// Records that must be there are missing at the end.
    pub fn finish(self) -> Result<Report, Broken> {
        let last = self.head.unwrap_or(Head::START);
        if let Some(known) = self.expected.filter(|known| known.seq > last.seq) {
            let why = format!("it is missing, as is all up to record {}", known.seq);
            return Err(Broken { record: last.seq.saturating_add(1), why });
        }
        Ok(Report {
            first: self.first,
            last,
            signed_through: if self.signed_through < self.first { 0 } else { self.signed_through },
            audit_key: self.pinned.or(self.named),
            clock_set_back: self.clock_set_back,
            tails_cut: self.tails_cut,
        })
    }

    fn judge(&mut self, record: &Record) -> Result<(), String> {
        self.clock_set_back += u64::from(record.time < self.newest);
        self.newest = record.time;
        match &record.event {
            Event::Segment { audit_key: Some(spki), .. } | Event::AuditKey { audit_key: spki, .. } => {
                self.name_key(&spki.0)
            }
            Event::Checkpoint { through, hash, signature } => {
                self.checkpoint(Head { seq: *through, hash: *hash }, &signature.0)
            }
            Event::TailCut { .. } => {
                self.tails_cut += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn name_key(&mut self, spki: &[u8]) -> Result<(), String> {
        let key = PublicKey::from_spki(spki).map_err(|e| e.message)?;
        if self.pinned.as_ref().or(self.named.as_ref()).is_some_and(|known| *known != key) {
            return Err("it names another audit key".to_owned());
        }
        self.named = Some(key);
        Ok(())
    }

    fn checkpoint(&mut self, through: Head, signature: &[u8]) -> Result<(), String> {
        let key = self.pinned.as_ref().or(self.named.as_ref()).ok_or("no audit key was named before it")?;
        key.verify(SignInput::Message(&checkpoint_message(&through)), signature)
            .map_err(|_| "its signature is not the audit key's".to_owned())?;
        if self.first > 1 && through.seq < self.first {
            // It covers records of a file that was moved away.
            return Ok(());
        }
        let covered = through
            .seq
            .checked_sub(self.signed_through)
            .filter(|covered| *covered > 0)
            .and_then(|covered| usize::try_from(covered).ok())
            .ok_or("it covers nothing that is not covered yet")?;
        // The checkpoint itself is the last of these.
        if covered >= self.unsigned.len() || self.unsigned.get(covered - 1) != Some(&through.hash) {
            return Err("it was signed over another chain".to_owned());
        }
        self.unsigned.drain(..covered);
        self.signed_through = through.seq;
        Ok(())
    }
}
