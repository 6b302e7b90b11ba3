//! TPMT_SIGNATURE (Part 2 §11.3.4).

use keyd_core::Hash;

use super::Reader;
use crate::Refusal;

const WHAT: &str = "TPMT_SIGNATURE";
/// Longest TPMT_SIGNATURE, in bytes; ECDSA over P-384 has 104.
const LIMIT: usize = 256;
const TPM_ALG_ECDSA: u16 = 0x0018;

/// An ECDSA signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature<'a> {
    /// The hash that was signed.
    pub hash: Hash,
    /// Big-endian; leading zeros may be left out.
    pub r: &'a [u8],
    /// Big-endian; leading zeros may be left out.
    pub s: &'a [u8],
}

impl<'a> Signature<'a> {
    /// Reads a TPMT_SIGNATURE.
    ///
    /// # Errors
    /// As [`super::Public::parse`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(WHAT, bytes, LIMIT)?;
        match reader.u16()? {
            TPM_ALG_ECDSA => {}
            other => return Err(reader.unsupported("signature scheme", other.into())),
        }
        let hash = reader.hash()?;
        let (r, s) = (reader.sized()?, reader.sized()?);
        reader.end()?;
        Ok(Self { hash, r, s })
    }
}
