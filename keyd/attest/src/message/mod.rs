//! The three messages of `keyd_tpm`, as protocol buffers.
//!
//! They are decoded strictly: what does not read back to the same bytes (unknown fields, fields out of order or
//! twice, longer encodings of the same number) is refused, and so is any version but [`VERSION`].

mod challenge;
mod payload;
mod response;

use prost::Message;

use crate::Refusal;

pub use challenge::Challenge;
pub use payload::Payload;
pub use response::Response;

/// The version of the protocol that this release speaks.
pub const VERSION: u32 = 1;

/// Longest message in either direction, in bytes; a payload with an EK certificate has about 2 KiB.
pub const MESSAGE_LIMIT: usize = 16 << 10; // 16 KiB

/// Most keys that one attestation vouches for: a stock agent has two slots, and uses either.
pub const KEYS: usize = 2;

/// A message as protocol buffers carry it.
trait Versioned: Message + Default {
    /// How refusals call it.
    const WHAT: &'static str;

    fn version(&self) -> u32;
}

fn decode<M: Versioned>(bytes: &[u8]) -> Result<M, Refusal> {
    if bytes.len() > MESSAGE_LIMIT {
        return Err(Refusal::TooLong { what: M::WHAT, limit: MESSAGE_LIMIT });
    }
    let message =
        M::decode(bytes).map_err(|_| Refusal::Message { what: M::WHAT, why: "it cannot be decoded" })?;
    if message.version() != VERSION {
        return Err(Refusal::Version { what: M::WHAT, version: message.version(), known: VERSION });
    }
    match message.encode_to_vec() == bytes {
        true => Ok(message),
        false => {
            Err(Refusal::Message { what: M::WHAT, why: "it has unknown fields or is not in canonical form" })
        }
    }
}

fn bounded(what: &'static str, bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, Refusal> {
    match bytes.len() {
        0 => Err(Refusal::Truncated { what }),
        len if len > limit => Err(Refusal::TooLong { what, limit }),
        _ => Ok(bytes),
    }
}

fn index(index: u32) -> Result<u8, Refusal> {
    u8::try_from(index).map_err(|_| Refusal::NoSuchPcr { index })
}
