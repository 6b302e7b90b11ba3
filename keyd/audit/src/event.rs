//! What is recorded.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyd_core::{Algorithm, KeyId, Namespace, Operation, Protection};
use serde::{Deserialize, Serialize};

use crate::Text;
use crate::chain::Hash;

/// Something that happened. In JSON the member `event` names it, as `key-created`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A file begins.
    Segment {
        /// Hash of the record before; zeros in the first file.
        #[serde(with = "hex::serde")]
        previous: Hash,
        /// The audit key, where it was known: DER SubjectPublicKeyInfo.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audit_key: Option<Base64>,
    },
    /// The key that signs checkpoints from here on.
    AuditKey {
        /// DER SubjectPublicKeyInfo.
        audit_key: Base64,
        /// What the private key is protected by.
        protection: Protection,
    },
    /// Everything up to a record, signed by the audit key.
    Checkpoint {
        /// The last record that the signature covers.
        through: u64,
        /// That record's hash.
        #[serde(with = "hex::serde")]
        hash: Hash,
        /// Raw signature over [`crate::checkpoint_message`].
        signature: Base64,
    },
    /// An earlier log was set aside by the operator, and this one begun.
    LogRestarted {
        /// The last record that was known of it.
        last: u64,
    },
    /// The last line was not whole after a crash or power cut, and was cut off. Nobody had been told of it.
    TailCut {
        /// How much was cut off, in bytes.
        bytes: u64,
        /// SHA-384 of it.
        #[serde(with = "hex::serde")]
        sha384: Hash,
    },
    /// keyd started.
    Started {
        /// keyd's version.
        version: String,
    },
    /// keyd was told to stop.
    Stopped {},
    /// The configuration was read again: namespaces, grants, issuance profiles. A refused one changed nothing.
    PolicyReloaded {},
    /// An operator took an older copy of the store for the right one, while keyd did not run.
    StoreAccepted {
        /// How many keys are in it.
        keys: u64,
    },
    /// A private key in the token that no key of keyd's uses was destroyed.
    OrphanRemoved {
        /// Its CKA_ID, hexadecimal.
        object: Text,
        /// What it was labelled with.
        label: Text,
    },
    /// The TPM's storage root key was made, at an operator's word.
    StorageRootMade {
        /// Its Name (TPM 2.0 Part 1 §16), hexadecimal: what `srk_name` pins. None where that failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Text>,
    },
    /// A key was made.
    KeyCreated(KeyFacts),
    /// A key was replaced by a new one.
    KeyRotated(KeyFacts),
    /// A key was destroyed.
    KeyDeleted(KeyFacts),
    /// A key's secret was moved to another protection.
    KeyMigrated(KeyFacts),
    /// A key was put back from an escrow.
    KeyRestored(KeyFacts),
    /// The secrets of keys left in an escrow, encrypted to the operator.
    EscrowExported {
        /// How many.
        keys: u32,
        /// Of this namespace, or of all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<Namespace>,
        /// SHA-256 of the operator's SubjectPublicKeyInfo.
        #[serde(with = "hex::serde")]
        recipient: [u8; 32],
    },
    /// An escrow was opened, so that the secrets of its keys were in keyd's memory.
    EscrowOpened {
        /// The node that it was to be of.
        node: Text,
        /// How many keys are in it; 0 where it did not open.
        keys: u32,
        /// Whether nothing was to be restored.
        dry_run: bool,
    },
    /// A key's secret was sealed anew, to what the TPM boots now or is to boot.
    KeyResealed(KeyFacts),
    /// A protection could not be had, and the next one of the namespace's list was tried.
    Fallback {
        /// The key that was to be made.
        key: KeyId,
        /// Its algorithm.
        algorithm: Algorithm,
        /// The protection that could not be had.
        protection: Protection,
    },
    /// A device did not make or seal a key.
    SealFailed {
        /// The key.
        key: KeyId,
        /// What it was to be protected by.
        protection: Protection,
    },
    /// A sealed or wrapped key did not open. Repetitions are counted.
    UnsealFailed {
        /// The key.
        key: KeyId,
        /// How often since the last record of it.
        count: u64,
    },
    /// The policy gave a caller no right. Repetitions are counted; the last one is described.
    Denied {
        /// What was asked.
        operation: Operation,
        /// In which namespace, where it was about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<Namespace>,
        /// How often since the last record of this user and operation.
        count: u64,
    },
    /// An attestation vouched for an agent's keys.
    AttestationBound {
        /// The agent's SPIFFE ID.
        agent: Text,
        /// SHA-256 of each key's SubjectPublicKeyInfo, hexadecimal; two at most.
        keys: Vec<String>,
    },
    /// An agent's key was to be certified, by that word.
    AttestationRedeemed {
        /// The agent's SPIFFE ID.
        agent: Text,
        /// SHA-256 of the key's SubjectPublicKeyInfo.
        #[serde(with = "hex::serde")]
        key: [u8; 32],
    },
    /// A certificate was signed, or was about to be.
    CertificateIssued {
        /// The CA key.
        key: KeyId,
        /// Its version.
        version: u32,
        /// Serial number, hexadecimal.
        serial: Text,
        /// The SPIFFE ID that it certifies.
        spiffe_id: Text,
        /// Whether it is a CA.
        ca: bool,
        /// SHA-256 of the certified SubjectPublicKeyInfo.
        #[serde(with = "hex::serde")]
        spki_sha256: [u8; 32],
        /// Last moment of validity, in seconds since 1970-01-01T00:00:00Z.
        not_after: i64,
    },
    /// An issuance profile did not allow a signature. Repetitions are counted; the last one is described.
    IssuanceRefused {
        /// The CA key.
        key: KeyId,
        /// The rule that was broken.
        rule: Text,
        /// How often since the last record of this user and key.
        count: u64,
    },
}

/// A key, as it was made or destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFacts {
    /// Its id.
    pub key: KeyId,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// The protection that it really has.
    pub protection: Protection,
    /// 1, and one more at each rotation.
    pub version: u32,
    /// SHA-256 of its SubjectPublicKeyInfo.
    #[serde(with = "hex::serde")]
    pub fingerprint: [u8; 32],
}

impl Event {
    /// The name in JSON, as `key-created`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Segment { .. } => "segment",
            Self::AuditKey { .. } => "audit-key",
            Self::Checkpoint { .. } => "checkpoint",
            Self::LogRestarted { .. } => "log-restarted",
            Self::TailCut { .. } => "tail-cut",
            Self::Started { .. } => "started",
            Self::Stopped {} => "stopped",
            Self::PolicyReloaded {} => "policy-reloaded",
            Self::StoreAccepted { .. } => "store-accepted",
            Self::OrphanRemoved { .. } => "orphan-removed",
            Self::StorageRootMade { .. } => "storage-root-made",
            Self::KeyCreated(_) => "key-created",
            Self::KeyRotated(_) => "key-rotated",
            Self::KeyDeleted(_) => "key-deleted",
            Self::KeyMigrated(_) => "key-migrated",
            Self::KeyRestored(_) => "key-restored",
            Self::EscrowExported { .. } => "escrow-exported",
            Self::EscrowOpened { .. } => "escrow-opened",
            Self::KeyResealed(_) => "key-resealed",
            Self::Fallback { .. } => "fallback",
            Self::SealFailed { .. } => "seal-failed",
            Self::UnsealFailed { .. } => "unseal-failed",
            Self::Denied { .. } => "denied",
            Self::AttestationBound { .. } => "attestation-bound",
            Self::AttestationRedeemed { .. } => "attestation-redeemed",
            Self::CertificateIssued { .. } => "certificate-issued",
            Self::IssuanceRefused { .. } => "issuance-refused",
        }
    }

    /// The same, having happened so often since the last record of it.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        if let Self::Denied { count, .. }
        | Self::UnsealFailed { count, .. }
        | Self::IssuanceRefused { count, .. } = &mut self
        {
            *count = times;
        }
        self
    }

    /// Whether keyd only started or stopped.
    pub const fn is_start_or_stop(&self) -> bool {
        matches!(self, Self::Started { .. } | Self::Stopped {})
    }

    /// The key that it is about, where it is about one.
    pub const fn key(&self) -> Option<&KeyId> {
        match self {
            Self::KeyCreated(facts)
            | Self::KeyRotated(facts)
            | Self::KeyDeleted(facts)
            | Self::KeyMigrated(facts)
            | Self::KeyRestored(facts)
            | Self::KeyResealed(facts) => Some(&facts.key),
            Self::Fallback { key, .. }
            | Self::SealFailed { key, .. }
            | Self::UnsealFailed { key, .. }
            | Self::CertificateIssued { key, .. }
            | Self::IssuanceRefused { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// Bytes that JSON holds in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Base64(pub Vec<u8>);

impl TryFrom<String> for Base64 {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self)
    }
}

impl From<Base64> for String {
    fn from(bytes: Base64) -> Self {
        STANDARD.encode(bytes.0)
    }
}
