//! Why an attestation was refused.

use keyd_core::{Failure, Reason};

/// Why an attestation, or what a verifier was given to judge it by, was refused. Each is a sentence for the operator;
/// none holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    // --- What cannot be read.
    /// Longer than its limit.
    #[error("{what} has more than {limit} bytes")]
    TooLong {
        /// The structure or message.
        what: &'static str,
        /// Bytes allowed.
        limit: usize,
    },
    /// It ends too early.
    #[error("{what} is cut short")]
    Truncated {
        /// The structure.
        what: &'static str,
    },
    /// Bytes are left over.
    #[error("{what} goes on after its end")]
    Trailing {
        /// The structure.
        what: &'static str,
    },
    /// A value of a structure that attestation does not use.
    #[error("{what} has {field} {value:#x}, which keyd does not take")]
    Unsupported {
        /// The structure.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// SHA-1 where a collision would matter.
    #[error("{what} uses SHA-1, which can be forged; make the key with SHA-256")]
    Sha1 {
        /// The structure.
        what: &'static str,
    },
    /// A message of the protocol that is not well formed.
    #[error("the {what} is not one of keyd_tpm: {why}. Do both ends run the same release of keyd?")]
    Message {
        /// Payload, challenge or response.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A message of another version of the protocol.
    #[error(
        "the {what} is of version {version} of keyd_tpm, this end knows version {known}; update the older end"
    )]
    Version {
        /// Payload, challenge or response.
        what: &'static str,
        /// Its version.
        version: u32,
        /// Ours.
        known: u32,
    },
    /// A PCR that no TPM has.
    #[error("PCR {index} does not exist; a TPM has 0 to 23")]
    NoSuchPcr {
        /// The index.
        index: u32,
    },
    /// A PCR with two values.
    #[error("PCR {index} is given twice")]
    PcrTwice {
        /// The index.
        index: u8,
    },
    /// A PCR value of another length.
    #[error("the value of PCR {index} is not a SHA-256 digest of 32 bytes")]
    PcrLength {
        /// The index.
        index: u8,
    },

    // --- The endorsement key.
    /// Roots are demanded, and nobody has a certificate.
    #[error(
        "the TPM has no EK certificate, and ek_roots demands one. Put the manufacturer's certificate into the node's manifest as ek_certificate, or rely on the enrolled list alone"
    )]
    EkCertificateMissing,
    /// It cannot be read.
    #[error("the EK certificate cannot be read: {why}")]
    EkCertificateMalformed {
        /// The field or encoding at fault.
        why: String,
    },
    /// No path to one of the roots.
    #[error("the EK certificate does not chain to one of ek_roots: {source}")]
    EkCertificateUntrusted {
        /// What the path building met last.
        #[source]
        source: webpki::Error,
    },
    /// A certificate for something else.
    #[error("the certificate is not for an endorsement key: it lacks the extended key usage 2.23.133.8.1")]
    EkCertificateUsage,
    /// The certificate is of another key.
    #[error("the EK certificate is of another key than the endorsement key that the node names")]
    EkKeyDiffers,
    /// A key that is no endorsement key of the TCG's templates.
    #[error("not an endorsement key that keyd takes: {why}")]
    EkUnfit {
        /// What is wrong with it.
        why: &'static str,
    },
    /// It is not in the list.
    #[error("the endorsement key {ek} is not enrolled; add the node's manifest to the enrolled list")]
    EkNotEnrolled {
        /// SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
        ek: String,
    },

    // --- The attestation key and its quote.
    /// A key whose signature proves nothing about a TPM.
    #[error("the attestation key proves nothing: {why}")]
    AkUnfit {
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not the key that was enrolled.
    #[error(
        "the attestation key {actual} is not the enrolled one ({expected}); enrol the node again if its TPM was cleared"
    )]
    AkNotEnrolled {
        /// Name in the manifest, hexadecimal.
        expected: String,
        /// Name of the key offered, hexadecimal.
        actual: String,
    },
    /// The signature is not the attestation key's.
    #[error("the quote's signature does not verify with the attestation key")]
    Signature,
    /// The magic is missing: the host wrote the structure, not the TPM.
    #[error("the quote was not made by a TPM: it lacks TPM_GENERATED")]
    NotGenerated,
    /// Another kind of attestation.
    #[error("the attestation is of kind {kind:#06x}, not a quote")]
    NotQuote {
        /// TPMI_ST_ATTEST.
        kind: u16,
    },
    /// Qualifying data of another attestation, another key, or of a TPM that does not hold the endorsement key.
    #[error(
        "the quote does not answer this challenge: nonce, activated secret or key to be certified differ"
    )]
    NotBound,
    /// Other PCRs were quoted.
    #[error("the quote is not over PCRs {expected} of the SHA-256 bank alone")]
    PcrSelection {
        /// What was asked for, as `0,2,7`.
        expected: String,
    },
    /// The values do not give the digest.
    #[error("the PCR values given are not those that were quoted")]
    PcrDigest,
    /// A PCR has another value than the manifest says.
    #[error(
        "PCR {index} is {actual}, the manifest says {expected}: firmware, boot loader or configuration changed. If that was you, write the manifest anew"
    )]
    PcrMoved {
        /// The index.
        index: u8,
        /// Value in the manifest, hexadecimal.
        expected: String,
        /// Value quoted, hexadecimal.
        actual: String,
    },
    /// The answer came too late, or the clock went back.
    #[error("the answer did not come within {limit} s of the challenge")]
    TooLate {
        /// Seconds allowed.
        limit: u64,
    },

    // --- What a verifier is given.
    /// Nothing to judge by.
    #[error("neither ek_roots nor enrolled is given; without one every TPM would be accepted")]
    NoPolicy,
    /// Nothing to quote.
    #[error("pcrs is empty; name at least one PCR, such as 7 for the state of Secure Boot")]
    NoPcrs,
    /// Roots that cannot be used.
    #[error("ek_roots: {why}")]
    Roots {
        /// Which certificate, and what is wrong with it.
        why: String,
    },
    /// A manifest that cannot be used.
    #[error("{file}: {why}")]
    Manifest {
        /// Where it came from.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The cryptographic library refused.
    #[error("cryptographic operation failed: {what}")]
    Crypto {
        /// The operation.
        what: &'static str,
    },
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let reason = match refusal {
            Refusal::TooLong { .. }
            | Refusal::Truncated { .. }
            | Refusal::Trailing { .. }
            | Refusal::Unsupported { .. }
            | Refusal::Message { .. }
            | Refusal::Version { .. }
            | Refusal::NoSuchPcr { .. }
            | Refusal::PcrTwice { .. }
            | Refusal::PcrLength { .. } => Reason::BadRequest,
            Refusal::NoPolicy | Refusal::NoPcrs | Refusal::Roots { .. } | Refusal::Manifest { .. } => {
                Reason::BadConfig
            }
            Refusal::PcrMoved { .. } => Reason::PcrChanged,
            Refusal::AkNotEnrolled { .. } => Reason::TpmReplaced,
            Refusal::TooLate { .. } => Reason::DeadlineExceeded,
            Refusal::Crypto { .. } => Reason::Internal,
            _ => Reason::Denied,
        };
        Self::new(reason, refusal.to_string())
    }
}
