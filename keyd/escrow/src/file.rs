//! The file: a header that anybody may read, and the keys.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA384, Salt};
use keyd_core::Secret;
use prost::Message;
use zeroize::Zeroizing;

use crate::{Error, EscrowedKey, Recipient, contents};

/// Longest file, in bytes: 10,000 keys of RSA-4096 need half of it.
pub const FILE_LIMIT: usize = 64 << 20; // 64 MiB

const MAGIC: &[u8; 12] = b"keyd escrow\n";
const VERSION: u16 = 1;
/// Longest header, in bytes: 1568 of them are the ML-KEM-1024 ciphertext (FIPS 203 table 3).
const HEADER_LIMIT: usize = 4096;
/// Longest node name, in bytes.
const NODE_LIMIT: usize = 255;
const TAG_LEN: usize = 16;

/// What anybody may read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// SHA-256 of the recipient's SubjectPublicKeyInfo.
    pub recipient: [u8; 32],
    /// The node whose keys they are: its host name.
    pub node: String,
    /// When it was made, in seconds since 1970-01-01T00:00:00Z.
    pub created_at: i64,
    /// How many keys are in it.
    pub keys: u32,
}

/// A [`Header`] in the file.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(bytes = "vec", tag = "1")]
    recipient: Vec<u8>,
    #[prost(string, tag = "2")]
    node: String,
    #[prost(int64, tag = "3")]
    created_at: i64,
    #[prost(uint32, tag = "4")]
    keys: u32,
    #[prost(uint64, tag = "5")]
    sealed_len: u64,
    #[prost(bytes = "vec", tag = "6")]
    encapsulated: Vec<u8>,
}

/// A file whose header was read. Nothing of it is proved before it is opened.
#[derive(Debug)]
pub struct EscrowFile<'a> {
    header: Header,
    encapsulated: Vec<u8>,
    /// Everything before the keys.
    head: &'a [u8],
    sealed: &'a [u8],
}

/// Encrypts keys to a recipient.
///
/// # Errors
/// [`Error::TooMuch`]; [`Error::Header`] for a node name that cannot be one; [`Error::Library`].
pub fn seal(
    recipient: &Recipient,
    node: &str,
    created_at: i64,
    keys: &[EscrowedKey],
) -> Result<Vec<u8>, Error> {
    check_node(node)?;
    let too_much = || Error::TooMuch { limit: FILE_LIMIT };
    let len = contents::encoded_len(keys);
    if len > FILE_LIMIT - HEADER_LIMIT - TAG_LEN {
        return Err(too_much());
    }
    let (encapsulated, shared) = recipient.encapsulate()?;
    let stored = Stored {
        recipient: recipient.fingerprint().to_vec(),
        node: node.to_owned(),
        created_at,
        keys: u32::try_from(keys.len()).map_err(|_| too_much())?,
        sealed_len: (len + TAG_LEN) as u64,
        encapsulated,
    };
    let mut file =
        [MAGIC.as_slice(), &VERSION.to_be_bytes(), &stored.encode_length_delimited_to_vec()].concat();
    let mut sealed = Zeroizing::new(contents::encode(keys, len + TAG_LEN));
    cipher(&shared, &file)?
        .seal_in_place_append_tag(nonce(), Aad::from(&file), &mut *sealed)
        .map_err(|_| Error::Library { what: "encrypt the keys" })?;
    file.extend_from_slice(&sealed);
    Ok(file)
}

impl<'a> EscrowFile<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// What [`Error`] says of a file that is not one, not whole, or from a newer keyd.
    pub fn parse(file: &'a [u8]) -> Result<Self, Error> {
        if file.len() > FILE_LIMIT {
            return Err(Error::TooLong { limit: FILE_LIMIT });
        }
        let rest = file.strip_prefix(MAGIC).ok_or(Error::NotAnEscrow)?;
        let bad = |why: &str| Error::Header { why: why.to_owned() };
        let (version, mut rest) = rest.split_first_chunk().ok_or_else(|| bad("it is cut short"))?;
        match u16::from_be_bytes(*version) {
            VERSION => {}
            found => return Err(Error::Version { found }),
        }
        let len = prost::decode_length_delimiter(&mut rest).map_err(|e| bad(&e.to_string()))?;
        if len > HEADER_LIMIT {
            return Err(bad("it is too long"));
        }
        let (header, sealed) = rest.split_at_checked(len).ok_or_else(|| bad("it is cut short"))?;
        let head = file.get(..file.len() - sealed.len()).unwrap_or_default();
        let stored = Stored::decode(header).map_err(|e| bad(&e.to_string()))?;
        if stored.sealed_len != sealed.len() as u64 {
            let expected = stored.sealed_len.saturating_add(head.len() as u64);
            return Err(Error::Length { expected, found: file.len() as u64 });
        }
        check_node(&stored.node)?;
        let header = Header {
            recipient: stored.recipient.try_into().map_err(|_| bad("its recipient is no SHA-256"))?,
            node: stored.node,
            created_at: stored.created_at,
            keys: stored.keys,
        };
        Ok(Self { header, encapsulated: stored.encapsulated, head, sealed })
    }

    /// What anybody may read.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The ML-KEM-1024 ciphertext for the recipient.
    pub(crate) fn encapsulated(&self) -> &[u8] {
        &self.encapsulated
    }

    /// Opens it with what [`crate::OperatorKey::unlock`] gave. Each key is expanded once, to see that it is what it is said
    /// to be, which for thousands takes seconds.
    ///
    /// # Errors
    /// [`Error::DidNotOpen`] where a single bit of it is not as it was written; [`Error::Contents`].
    pub fn open(&self, unlocked: &Secret) -> Result<Vec<EscrowedKey>, Error> {
        let mut sealed = Zeroizing::new(self.sealed.to_vec());
        let opened = cipher(unlocked, self.head)?
            .open_in_place(nonce(), Aad::from(self.head), &mut sealed)
            .map_err(|_| Error::DidNotOpen)?;
        let keys = contents::decode(opened)?;
        if keys.len() as u64 != u64::from(self.header.keys) {
            let why = format!("{} keys where the header says {}", keys.len(), self.header.keys);
            return Err(Error::Contents { why });
        }
        Ok(keys)
    }
}

/// AES-256-GCM under a key that is this file's alone.
fn cipher(shared: &Secret, head: &[u8]) -> Result<LessSafeKey, Error> {
    let info = [head];
    let pseudorandom = Salt::new(HKDF_SHA384, &[]).extract(shared.expose());
    let key =
        pseudorandom.expand(&info, &AES_256_GCM).map_err(|_| Error::Library { what: "derive a key" })?;
    Ok(LessSafeKey::new(UnboundKey::from(key)))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn check_node(node: &str) -> Result<(), Error> {
    let well_formed = (1..=NODE_LIMIT).contains(&node.len()) && node.chars().all(|c| c.is_ascii_graphic());
    match well_formed {
        true => Ok(()),
        false => Err(Error::Header {
            why: format!("a node's name has 1 to {NODE_LIMIT} printable characters of ASCII, without blanks"),
        }),
    }
}
