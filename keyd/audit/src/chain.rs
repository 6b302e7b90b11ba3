//! The chain: lines, and the hash that ties each to all before it.

use keyd_core::crypto;

use crate::record::{Draft, Record};

/// A SHA-384 hash, 48 bytes.
pub type Hash = [u8; 48];

/// Longest line, in bytes, its end included. A checkpoint by ML-DSA-87 has about 6,500.
pub const LINE_LIMIT: usize = 16 * 1024;

/// What a hash begins with, so that it is no hash of anything else.
const DOMAIN: &[u8] = b"keyd audit record v1\0";
/// How much of a bad line an error repeats, in characters.
const SHOWN: usize = 200;
/// Hexadecimal digits of a hash.
const HASH_DIGITS: usize = 96;

/// The last record of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number; 0 before the first.
    pub seq: u64,
    /// Its hash; zeros before the first.
    pub hash: Hash,
}

impl Head {
    /// Before the first record.
    pub const START: Self = Self { seq: 0, hash: [0; 48] };

    /// Appends a record: adds its line to `lines` and moves on. A draft longer than a line may be is refused.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub(crate) fn append(&mut self, time: i64, draft: &Draft, lines: &mut Vec<u8>) -> Result<(), String> {
        let record = Record {
            seq: self.seq.saturating_add(1),
            time,
            origin: draft.origin,
            event: draft.event.clone(),
            result: draft.result,
        };
        let body = serde_json::to_vec(&record).map_err(|e| e.to_string())?;
        if HASH_DIGITS + 1 + body.len() + 1 > LINE_LIMIT {
            return Err(format!("a record of {} bytes is longer than a line may be", body.len()));
        }
        *self = self.next(record.seq, &body);
        lines.extend_from_slice(hex::encode(self.hash).as_bytes());
        lines.push(b' ');
        lines.extend_from_slice(&body);
        lines.push(b'\n');
        Ok(())
    }

    /// The head after a record of this body.
    pub(crate) fn next(&self, seq: u64, body: &[u8]) -> Self {
        Self { seq, hash: hash(&[DOMAIN, &self.hash, body]) }
    }
}

/// Reads a line without its end: its hash, its JSON, and the record. What would be written differently is refused.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(line: &[u8]) -> Result<(Hash, &[u8], Record), String> {
    if line.len() >= LINE_LIMIT {
        return Err(format!("it has more than {LINE_LIMIT} bytes"));
    }
    let (digits, rest) = line.split_at_checked(HASH_DIGITS).ok_or("it is cut short")?;
    let body = rest.strip_prefix(b" ").ok_or("there is no space after its hash")?;
    let mut hash = [0; 48];
    hex::decode_to_slice(digits, &mut hash).map_err(|_| "it does not begin with a hash")?;
    let record: Record = serde_json::from_slice(body)
        .map_err(|e| format!("it is no record that this keyd knows: {}", short(&e)))?;
    let again = serde_json::to_vec(&record).map_err(|e| e.to_string())?;
    if again != body || digits.iter().any(u8::is_ascii_uppercase) {
        return Err("it is not written as keyd writes it".to_owned());
    }
    Ok((hash, body, record))
}

/// What JSON was expected, cut short where it repeats what was read.
fn short(error: &serde_json::Error) -> String {
    error.to_string().chars().take(SHOWN).collect()
}

/// SHA-384 over parts.
pub(crate) fn hash(parts: &[&[u8]]) -> Hash {
    let mut out = [0; 48];
    out.copy_from_slice(&crypto::digest(keyd_core::Hash::Sha384, parts));
    out
}
