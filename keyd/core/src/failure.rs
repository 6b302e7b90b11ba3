//! One shape for every refusal that reaches a user: a reason for machines, a sentence for people.

use std::fmt;

/// Why something was refused or failed; stable names that callers may match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A key id, namespace or key name that is not well formed.
    BadKeyId,
    /// An algorithm name that keyd does not know.
    UnknownAlgorithm,
    /// A protection name that keyd does not know.
    UnknownProtection,
    /// A request that makes no sense as it stands (a digest for ML-DSA, a wrong length).
    BadRequest,
    /// The policy gives this caller no such right.
    Denied,
    /// The profile of this node has no place for the algorithm.
    ProfileForbids,
    /// No such key.
    KeyNotFound,
    /// The key exists already.
    KeyExists,
    /// The namespace is not in the configuration.
    UnknownNamespace,
    /// None of the protections that the namespace accepts can hold this key.
    ProtectionUnavailable,
    /// The PKCS#11 token cannot be reached.
    TokenAbsent,
    /// The token refused the PIN; it is not tried again before keyd restarts.
    TokenLockedOut,
    /// The token failed in a way that is its own.
    TokenFailed,
    /// The token's worker ended during the call, or the module lost its state; a new worker serves the next try.
    TokenInterrupted,
    /// The TPM cannot be reached, or none is configured.
    TpmAbsent,
    /// The TPM is in dictionary-attack lockout.
    TpmLockout,
    /// The TPM is not the one that was enrolled.
    TpmReplaced,
    /// A PCR has another value than when the key was sealed.
    PcrChanged,
    /// No signature of the signed PCR policy approves what the PCRs are now.
    PolicyOutdated,
    /// The TPM failed in a way that is its own.
    TpmFailed,
    /// A sealed or wrapped secret did not open: damaged, or sealed elsewhere.
    UnsealFailed,
    /// A signature did not verify before it left, or a stored key does not match its public key.
    Integrity,
    /// The call's deadline ended, or the device did not answer in time.
    DeadlineExceeded,
    /// More calls at once, or more keys, than the configuration allows.
    LimitExceeded,
    /// The state directory or store failed.
    StoreFailed,
    /// The store is an older copy than the TPM's counter says, or bound to another counter.
    StoreRolledBack,
    /// The audit log cannot take the record of what was asked, so it was not done.
    AuditFailed,
    /// The key's issuance profile does not allow this signature.
    IssuanceRefused,
    /// The configuration is wrong.
    BadConfig,
    /// keyd cannot be reached.
    Unreachable,
    /// A fault in keyd itself.
    Internal,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 31] = [
        Self::BadKeyId,
        Self::UnknownAlgorithm,
        Self::UnknownProtection,
        Self::BadRequest,
        Self::Denied,
        Self::ProfileForbids,
        Self::KeyNotFound,
        Self::KeyExists,
        Self::UnknownNamespace,
        Self::ProtectionUnavailable,
        Self::TokenAbsent,
        Self::TokenLockedOut,
        Self::TokenFailed,
        Self::TokenInterrupted,
        Self::TpmAbsent,
        Self::TpmLockout,
        Self::TpmReplaced,
        Self::PcrChanged,
        Self::PolicyOutdated,
        Self::TpmFailed,
        Self::UnsealFailed,
        Self::Integrity,
        Self::DeadlineExceeded,
        Self::LimitExceeded,
        Self::StoreFailed,
        Self::StoreRolledBack,
        Self::AuditFailed,
        Self::IssuanceRefused,
        Self::BadConfig,
        Self::Unreachable,
        Self::Internal,
    ];

    /// The stable name, as `KEY_NOT_FOUND`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadKeyId => "BAD_KEY_ID",
            Self::UnknownAlgorithm => "UNKNOWN_ALGORITHM",
            Self::UnknownProtection => "UNKNOWN_PROTECTION",
            Self::BadRequest => "BAD_REQUEST",
            Self::Denied => "DENIED",
            Self::ProfileForbids => "PROFILE_FORBIDS",
            Self::KeyNotFound => "KEY_NOT_FOUND",
            Self::KeyExists => "KEY_EXISTS",
            Self::UnknownNamespace => "UNKNOWN_NAMESPACE",
            Self::ProtectionUnavailable => "PROTECTION_UNAVAILABLE",
            Self::TokenAbsent => "TOKEN_ABSENT",
            Self::TokenLockedOut => "TOKEN_LOCKED_OUT",
            Self::TokenFailed => "TOKEN_FAILED",
            Self::TokenInterrupted => "TOKEN_INTERRUPTED",
            Self::TpmAbsent => "TPM_ABSENT",
            Self::TpmLockout => "TPM_LOCKOUT",
            Self::TpmReplaced => "TPM_REPLACED",
            Self::PcrChanged => "PCR_CHANGED",
            Self::PolicyOutdated => "POLICY_OUTDATED",
            Self::TpmFailed => "TPM_FAILED",
            Self::UnsealFailed => "UNSEAL_FAILED",
            Self::Integrity => "INTEGRITY",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::StoreFailed => "STORE_FAILED",
            Self::StoreRolledBack => "STORE_ROLLED_BACK",
            Self::AuditFailed => "AUDIT_FAILED",
            Self::IssuanceRefused => "ISSUANCE_REFUSED",
            Self::BadConfig => "BAD_CONFIG",
            Self::Unreachable => "UNREACHABLE",
            Self::Internal => "INTERNAL",
        }
    }

    /// The reason with this stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }
}

/// A refusal or fault as a user sees it: what is wrong with which thing, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For machines.
    pub reason: Reason,
    /// For people; names the key, file or device, and the next step. Never holds a secret.
    pub message: String,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// How much of what was given a failure repeats, in characters.
const SHOWN: usize = 80;

/// `text` in quotes, cut short where it is long: a failure has to fit into a log line and an HTTP/2 header.
pub(crate) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN).collect();
    let dots = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{dots}")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for r in Reason::ALL {
            assert_eq!(Reason::from_name(r.name()), Some(r));
        }
    }
}
