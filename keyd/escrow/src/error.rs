//! Why an escrow cannot be made or read.

use keyd_core::{Failure, Reason};

/// Why an escrow cannot be made or read. Each is the end of a sentence that begins with the file; none holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another file, or none of ours.
    #[error("it is no escrow of keyd's")]
    NotAnEscrow,
    /// From a newer keyd.
    #[error("its format is version {found}, this keyd knows 1; use the newer keyd")]
    Version {
        /// As in the file.
        found: u16,
    },
    /// Longer than its limit.
    #[error("it has more than {limit} bytes")]
    TooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// The keys do not fit into one file.
    #[error("the keys need more than {limit} bytes; escrow one namespace at a time, with --namespace")]
    TooMuch {
        /// Bytes allowed.
        limit: usize,
    },
    /// It ends too early, or goes on after its end.
    #[error("it should have {expected} bytes and has {found}: it is not whole")]
    Length {
        /// Bytes, by the header.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The header is not well formed.
    #[error("its header cannot be read: {why}")]
    Header {
        /// What is wrong.
        why: String,
    },
    /// Made for another operator key.
    #[error(
        "it was made for the operator key {made_for}, and this one is {given} (SHA-256 of the public keys)"
    )]
    OtherRecipient {
        /// SHA-256 of the SubjectPublicKeyInfo, hexadecimal.
        made_for: String,
        /// The same, of the key at hand.
        given: String,
    },
    /// The tag does not fit.
    #[error("it does not open: it was changed, or is damaged")]
    DidNotOpen,
    /// What was encrypted is not what a keyd writes.
    #[error("what is in it cannot be read: {why}")]
    Contents {
        /// What is wrong.
        why: String,
    },
    /// Not the operator's public key.
    #[error("it is no public key of ML-KEM-1024 in PEM (RFC 9935): {why}")]
    Recipient {
        /// What is wrong.
        why: String,
    },
    /// Not the operator's private key.
    #[error(
        "it is no seed-only PKCS#8 private key of ML-KEM-1024 in PEM (RFC 9935): {why}. `keyd escrow new-recipient` makes \
         one; OpenSSL 3.5 writes one with -provparam ml-kem.output_formats=seed-only"
    )]
    OperatorKey {
        /// What is wrong; nothing of the key.
        why: &'static str,
    },
    /// The cryptographic library failed.
    #[error("aws-lc could not {what}")]
    Library {
        /// What it was to do.
        what: &'static str,
    },
    /// A key failed.
    #[error(transparent)]
    Key(#[from] Failure),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::NotAnEscrow
            | Error::Version { .. }
            | Error::TooLong { .. }
            | Error::Length { .. }
            | Error::Header { .. }
            | Error::OtherRecipient { .. }
            | Error::Recipient { .. }
            | Error::OperatorKey { .. } => Reason::BadRequest,
            Error::TooMuch { .. } => Reason::LimitExceeded,
            Error::DidNotOpen | Error::Contents { .. } => Reason::Integrity,
            Error::Library { .. } => Reason::Internal,
            Error::Key(failure) => failure.reason,
        };
        Self::new(reason, error.to_string())
    }
}
