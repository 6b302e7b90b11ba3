//! X.509-SVIDs of workloads: which are to be had, and how they are made.

pub mod cache;
pub mod chain;
pub mod lifetime;
pub mod mint;

use std::sync::Arc;

use keyd_core::Secret;
use keyd_x509::{Certificate, SpiffeId};

use crate::keyd_key::KeydKey;
use crate::svid::lifetime::Lifetime;

/// A workload's X.509-SVID and its key.
#[derive(Debug)]
pub struct Svid {
    /// Whose.
    pub spiffe_id: SpiffeId,
    /// Leaf first.
    pub chain: Vec<Certificate>,
    /// The leaf's key.
    pub key: SvidKey,
    /// From when to when it is good.
    pub lifetime: Lifetime,
    /// Of the entry that it was made for.
    pub revision: i64,
}

/// Where the private key of an SVID is.
#[derive(Debug)]
pub enum SvidKey {
    /// In this process, as PKCS#8 DER, for the Workload API.
    Memory(Secret),
    /// In keyd, for signatures by handle.
    Keyd(KeydKey),
}

/// The two kinds of SVID that an entry can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Custody {
    /// With the key handed out.
    Memory,
    /// With the key in keyd.
    Keyd,
}

/// What is to be made: an SVID of a kind for an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Want {
    /// The entry's id.
    pub entry: String,
    /// The kind.
    pub custody: Custody,
}

impl Svid {
    /// The key by handle, where it is one.
    pub fn keyd_key(&self) -> Option<&KeydKey> {
        match &self.key {
            SvidKey::Keyd(key) => Some(key),
            SvidKey::Memory(_) => None,
        }
    }
}

/// An SVID as it is passed around.
pub type Shared = Arc<Svid>;
