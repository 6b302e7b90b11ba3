//! What a checkpoint signs.

use crate::Head;

/// What the message begins with, so that the audit key's signature means nothing anywhere else.
const DOMAIN: &[u8] = b"keyd audit checkpoint v1\0";

/// The message that the audit key signs, pure ML-DSA with an empty context: a domain, the number of the last record
/// covered (8 bytes, big-endian) and its hash (48 bytes).
pub fn message(through: &Head) -> Vec<u8> {
    [DOMAIN, &through.seq.to_be_bytes(), &through.hash].concat()
}
