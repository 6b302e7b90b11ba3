//! TPM attestation without a TSS: wire structures, verifier, protocol state machines.
//!
//! Nothing here opens a socket or a device, or reads a clock: the caller carries the messages, says what time it is,
//! and has the TPM do what the node's steps ask for.
//!
//! # The protocol `keyd_tpm`, version 1
//!
//! ```text
//!  node                                                                       server
//!   | payload: EK certificate, EK and AK (TPMT_PUBLIC), hashes of the keys      |
//!   |   to be certified                                                         |
//!   |-------------------------------------------------------------------------->|  EK certificate chains to ek_roots,
//!   |                                                                           |  EK is enrolled, AK is a restricted
//!   |                                                                           |  signing key
//!   | challenge: MakeCredential(EK, Name of AK, secret), nonce, PCRs            |
//!   |<--------------------------------------------------------------------------|
//!   |  secret = ActivateCredential                                              |
//!   |  data = SHA-256("keyd_tpm v1" || nonce || secret || count || hashes)      |
//!   |  Quote(AK, data, PCRs)                                                    |
//!   | response: TPMS_ATTEST, TPMT_SIGNATURE, PCR values                         |
//!   |-------------------------------------------------------------------------->|  signature, magic, data, exact PCRs,
//!   |                                                                           |  digest, values in the manifest
//! ```
//!
//! The secret is never sent back. That the quote's qualifying data holds it proves that the TPM with this EK also holds
//! the AK (TPM 2.0 Part 1 §24); the nonce proves that the quote is fresh; the hashes tie it to the keys that will be
//! certified, so that nobody can pass another's attestation off with a key of his own.
//!
//! [`node`] and [`Verifier`] are the two ends. [`Manifest`] is what imaging writes and [`Enrolled`] the list made of it.

mod binding;
mod credential;
mod ek;
mod ek_certificate;
mod error;
mod kdf;
mod manifest;
mod message;
pub mod node;
mod pcr;
mod quote;
#[cfg(test)]
mod tests;
mod verifier;
pub mod wire;

pub use credential::Credential;
pub use ek::EkKey;
pub use ek_certificate::{EkRoots, Vouched, certified_key};
pub use error::Refusal;
pub use manifest::{EkCertificate, Enrolled, Manifest, References};
pub use message::{Challenge, KEYS, MESSAGE_LIMIT, Payload, Response, VERSION};
pub use pcr::{PcrSet, PcrValues};
pub use quote::AttestationKey;
pub use verifier::{AGENT_PATH, ANSWER_DEADLINE, Attested, Fresh, Pending, Policy, Verifier};
