//! What is encrypted: keys, one after the other.

use std::collections::BTreeSet;
use std::fmt;

use keyd_core::{Failure, KeyId, PublicKey, Secret};
use keyd_softkey::SoftKey;
use prost::Message;
use zeroize::Zeroize;

use crate::Error;

/// A key, with its secret.
pub struct EscrowedKey {
    id: KeyId,
    version: u32,
    created_at: i64,
    public_key: PublicKey,
    secret: Secret,
}

/// An [`EscrowedKey`] in the file.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Stored {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    algorithm: String,
    #[prost(uint32, tag = "3")]
    version: u32,
    #[prost(int64, tag = "4")]
    created_at: i64,
    /// SHA-256 of the SubjectPublicKeyInfo: what the secret must expand to.
    #[prost(bytes = "vec", tag = "5")]
    fingerprint: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    secret: Vec<u8>,
}

impl EscrowedKey {
    /// The key `id`, whose secret is that of `key`.
    pub fn new(id: KeyId, version: u32, created_at: i64, key: &SoftKey) -> Self {
        Self { id, version, created_at, public_key: key.public_key().clone(), secret: key.secret().clone() }
    }

    /// Its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// 1, and one more at each rotation.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub fn created_at(&self) -> i64 {
        self.created_at
    }

    /// Its public key, which follows from the secret.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What [`SoftKey::from_secret`] makes the key from.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    fn stored(&self) -> Stored {
        Stored {
            id: self.id.to_string(),
            algorithm: self.public_key.algorithm().to_string(),
            version: self.version,
            created_at: self.created_at,
            fingerprint: self.public_key.fingerprint().to_vec(),
            secret: self.secret.expose().to_vec(),
        }
    }

    fn read(mut stored: Stored) -> Result<Self, String> {
        let secret = Secret::new(std::mem::take(&mut stored.secret));
        let said = |e: Failure| e.message;
        let id: KeyId = stored.id.parse().map_err(said)?;
        let algorithm = stored.algorithm.parse().map_err(said)?;
        let key = SoftKey::from_secret(algorithm, &secret).map_err(|e| format!("key {id}: {e}"))?;
        if key.public_key().fingerprint() != *stored.fingerprint || stored.version == 0 {
            return Err(format!("key {id} is not what it is said to be"));
        }
        Ok(Self::new(id, stored.version, stored.created_at, &key))
    }
}

impl fmt::Debug for EscrowedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EscrowedKey({} version {}, {:?})", self.id, self.version, self.public_key)
    }
}

// === impl Stored ===

impl Drop for Stored {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Length of [`encode`]'s bytes.
pub(crate) fn encoded_len(keys: &[EscrowedKey]) -> usize {
    let len = |key: &EscrowedKey| key.stored().encoded_len();
    keys.iter().map(len).map(|len| prost::length_delimiter_len(len) + len).sum()
}

/// The keys, each with its length before it. `capacity` is what the bytes will ever need: a vector that grows leaves copies.
pub(crate) fn encode(keys: &[EscrowedKey], capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity);
    for key in keys {
        // A vector takes all that is put into it.
        let _ = key.stored().encode_length_delimited(&mut bytes);
    }
    bytes
}

/// Reads keys; nothing of them is taken on trust.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Vec<EscrowedKey>, Error> {
    let (mut keys, mut seen) = (Vec::new(), BTreeSet::new());
    while !bytes.is_empty() {
        let stored = Stored::decode_length_delimited(&mut bytes)
            .map_err(|e| Error::Contents { why: e.to_string() })?;
        let key = EscrowedKey::read(stored).map_err(|why| Error::Contents { why })?;
        if !seen.insert(key.id.clone()) {
            return Err(Error::Contents { why: format!("key {} stands twice", key.id) });
        }
        keys.push(key);
    }
    Ok(keys)
}
