//! TPMT_PUBLIC: the public area of a key (Part 2 §12.2.4).

use keyd_core::{Hash, crypto};

use super::reader::{Reader, hash_id};
use crate::Refusal;

const WHAT: &str = "TPMT_PUBLIC";
/// Longest TPMT_PUBLIC, in bytes; an RSA-4096 key with a SHA-512 policy has about 600.
const LIMIT: usize = 1024;

const TPM_ALG_RSA: u16 = 0x0001;
const TPM_ALG_AES: u16 = 0x0006;
const TPM_ALG_NULL: u16 = 0x0010;
const TPM_ALG_ECDSA: u16 = 0x0018;
const TPM_ALG_ECC: u16 = 0x0023;
const TPM_ALG_CFB: u16 = 0x0043;
const TPM_ECC_NIST_P256: u16 = 0x0003;
const TPM_ECC_NIST_P384: u16 = 0x0004;
/// The exponent that every TPM uses; 0 in the structure stands for it.
const RSA_EXPONENT: u32 = 65537;

/// The public area of an asymmetric key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    bytes: Vec<u8>,
    /// The hash that makes its Name.
    pub name_hash: Hash,
    /// What the key may do, and whether it can leave its TPM.
    pub attributes: Attributes,
    /// Bits of the AES-CFB key that protects the key's children; `None` where it has none.
    pub symmetric_bits: Option<u16>,
    /// How it signs.
    pub scheme: Scheme,
    /// The public key itself.
    pub key: Key,
}

/// TPMA_OBJECT (Part 2 §8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(u32);

/// A key's signing scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// None fixed, as for a storage key.
    Null,
    /// ECDSA over a digest of this hash.
    Ecdsa(Hash),
}

/// A public key in a TPM's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// RSA with exponent 65537.
    Rsa {
        /// Big-endian, without leading zeros.
        modulus: Vec<u8>,
    },
    /// A point on a NIST curve; not yet known to lie on it.
    Ecc {
        /// The curve.
        curve: Curve,
        /// Uncompressed, `04 || x || y`.
        point: Vec<u8>,
    },
}

/// A NIST curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
}

impl Public {
    /// Reads a TPMT_PUBLIC (the contents of a TPM2B_PUBLIC).
    ///
    /// # Errors
    /// A [`Refusal`] that names what is cut short, left over or not supported.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(WHAT, bytes, LIMIT)?;
        let kind = r.u16()?;
        let name_hash = r.hash()?;
        let attributes = Attributes::read(&mut r)?;
        let _auth_policy = r.sized()?;
        let symmetric_bits = symmetric(&mut r)?;
        let scheme = scheme(&mut r)?;
        let key = match kind {
            TPM_ALG_RSA => rsa(&mut r)?,
            TPM_ALG_ECC => ecc(&mut r)?,
            other => return Err(r.unsupported("key type", other.into())),
        };
        r.end()?;
        Ok(Self { bytes: bytes.to_vec(), name_hash, attributes, symmetric_bits, scheme, key })
    }

    /// The structure as it was read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The Name: two bytes of hash algorithm, then the digest of the structure (Part 1 §16).
    pub fn name(&self) -> Vec<u8> {
        let digest = crypto::digest(self.name_hash, &[&self.bytes]);
        [hash_id(self.name_hash).to_be_bytes().as_slice(), &digest].concat()
    }
}

fn symmetric(r: &mut Reader<'_>) -> Result<Option<u16>, Refusal> {
    match r.u16()? {
        TPM_ALG_NULL => Ok(None),
        TPM_ALG_AES => {
            let bits = r.u16()?;
            match r.u16()? {
                TPM_ALG_CFB => Ok(Some(bits)),
                other => Err(r.unsupported("symmetric mode", other.into())),
            }
        }
        other => Err(r.unsupported("symmetric algorithm", other.into())),
    }
}

fn scheme(r: &mut Reader<'_>) -> Result<Scheme, Refusal> {
    match r.u16()? {
        TPM_ALG_NULL => Ok(Scheme::Null),
        TPM_ALG_ECDSA => r.hash().map(Scheme::Ecdsa),
        other => Err(r.unsupported("scheme", other.into())),
    }
}

fn rsa(r: &mut Reader<'_>) -> Result<Key, Refusal> {
    let bits = r.u16()?;
    let exponent = r.u32()?;
    if exponent != 0 && exponent != RSA_EXPONENT {
        return Err(r.unsupported("RSA exponent", exponent));
    }
    let modulus = r.sized()?;
    if modulus.len() * 8 != usize::from(bits) || modulus.first().is_none_or(|b| *b < 0x80) {
        return Err(r.unsupported("RSA size", bits.into()));
    }
    Ok(Key::Rsa { modulus: modulus.to_vec() })
}

fn ecc(r: &mut Reader<'_>) -> Result<Key, Refusal> {
    let curve = match r.u16()? {
        TPM_ECC_NIST_P256 => Curve::P256,
        TPM_ECC_NIST_P384 => Curve::P384,
        other => return Err(r.unsupported("curve", other.into())),
    };
    match r.u16()? {
        TPM_ALG_NULL => {}
        other => return Err(r.unsupported("key derivation scheme", other.into())),
    }
    let (x, y) = (r.sized()?, r.sized()?);
    match (curve.pad(x), curve.pad(y)) {
        (Some(x), Some(y)) => Ok(Key::Ecc { curve, point: [&[4], x.as_slice(), &y].concat() }),
        _ => Err(r.unsupported("coordinate length", u32::try_from(x.len().max(y.len())).unwrap_or(u32::MAX))),
    }
}

// === impl Attributes ===

impl Attributes {
    /// The key cannot be duplicated to another TPM.
    pub const FIXED_TPM: Self = Self(1 << 1);
    /// The key cannot be moved to another parent.
    pub const FIXED_PARENT: Self = Self(1 << 4);
    /// The TPM made the private key itself.
    pub const SENSITIVE_DATA_ORIGIN: Self = Self(1 << 5);
    /// A duplicate of it would have to be encrypted.
    pub const ENCRYPTED_DUPLICATION: Self = Self(1 << 11);
    /// It signs only what the TPM made, or decrypts only what is for the TPM.
    pub const RESTRICTED: Self = Self(1 << 16);
    /// It decrypts.
    pub const DECRYPT: Self = Self(1 << 17);
    /// It signs.
    pub const SIGN: Self = Self(1 << 18);
    /// It signs certificates whose contents the host chooses.
    pub const X509_SIGN: Self = Self(1 << 19);
    /// stClear, userWithAuth, adminWithPolicy and noDA, which say who may use the key and for how long.
    const USAGE: Self = Self(1 << 2 | 1 << 6 | 1 << 7 | 1 << 10);

    const KNOWN: Self = Self::USAGE
        .and(Self::FIXED_TPM)
        .and(Self::FIXED_PARENT)
        .and(Self::SENSITIVE_DATA_ORIGIN)
        .and(Self::ENCRYPTED_DUPLICATION)
        .and(Self::RESTRICTED)
        .and(Self::DECRYPT)
        .and(Self::SIGN)
        .and(Self::X509_SIGN);

    /// These attributes and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `others` are set.
    pub const fn has_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether at least one of `others` is set.
    pub const fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Refusal> {
        let bits = r.u32()?;
        match Self::KNOWN.has_all(Self(bits)) {
            true => Ok(Self(bits)),
            false => Err(r.unsupported("attribute word", bits)),
        }
    }
}

// === impl Curve ===

impl Curve {
    /// Length of a coordinate, in bytes.
    pub const fn coordinate_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    /// A big-endian integer with the leading zeros that some TPMs leave out; `None` if it has too many bytes.
    pub(crate) fn pad(self, integer: &[u8]) -> Option<Vec<u8>> {
        let zeros = self.coordinate_len().checked_sub(integer.len())?;
        Some([&vec![0; zeros], integer].concat())
    }
}
