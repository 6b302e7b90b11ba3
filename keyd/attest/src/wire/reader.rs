//! Reads big-endian TPM structures without ever looking past their end.

use keyd_core::Hash;

use crate::Refusal;

const TPM_ALG_SHA1: u16 = 0x0004;
const TPM_ALG_SHA256: u16 = 0x000b;
const TPM_ALG_SHA384: u16 = 0x000c;
const TPM_ALG_SHA512: u16 = 0x000d;

/// What is left of a structure, and the structure's name for refusals.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins to read `bytes`, at most `limit` of them, as the structure named `what`.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8], limit: usize) -> Result<Self, Refusal> {
        if bytes.len() > limit {
            return Err(Refusal::TooLong { what, limit });
        }
        Ok(Self { what, rest: bytes })
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Refusal> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Refusal::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Refusal> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Refusal> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B: two bytes of length, then so many bytes.
    pub(crate) fn sized(&mut self) -> Result<&'a [u8], Refusal> {
        let len = self.u16()?;
        self.take(len.into())
    }

    /// A TPMI_ALG_HASH. SHA-1 is refused: a collision would let one structure stand for another.
    pub(crate) fn hash(&mut self) -> Result<Hash, Refusal> {
        match self.u16()? {
            TPM_ALG_SHA256 => Ok(Hash::Sha256),
            TPM_ALG_SHA384 => Ok(Hash::Sha384),
            TPM_ALG_SHA512 => Ok(Hash::Sha512),
            TPM_ALG_SHA1 => Err(Refusal::Sha1 { what: self.what }),
            other => Err(self.unsupported("hash", other.into())),
        }
    }

    /// Ends the structure; nothing may be left.
    pub(crate) fn end(self) -> Result<(), Refusal> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Refusal::Trailing { what: self.what }),
        }
    }

    pub(crate) fn unsupported(&self, field: &'static str, value: u32) -> Refusal {
        Refusal::Unsupported { what: self.what, field, value }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Refusal::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(*head)
    }
}

/// The TPM_ALG_ID of a hash.
pub(crate) const fn hash_id(hash: Hash) -> u16 {
    match hash {
        Hash::Sha256 => TPM_ALG_SHA256,
        Hash::Sha384 => TPM_ALG_SHA384,
        Hash::Sha512 => TPM_ALG_SHA512,
    }
}

/// Appends a TPM2B.
///
/// # Errors
/// [`Refusal::TooLong`] for more than 65,535 bytes, which no caller has.
pub(crate) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Refusal> {
    let limit = u16::MAX.into();
    let len = u16::try_from(bytes.len()).map_err(|_| Refusal::TooLong { what: "TPM2B", limit })?;
    out.extend(len.to_be_bytes());
    out.extend(bytes);
    Ok(())
}
