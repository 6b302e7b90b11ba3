//! Escrow: the secrets of a node's keys in one file, encrypted to the operator, for the day when TPM or token is lost.
//!
//! A file is
//!
//! | bytes | what |
//! |---|---|
//! | 12 | `keyd escrow` and a newline |
//! | 2 | version of the format, big-endian: 1 |
//! | varint, then so many | the [`Header`], protobuf, with the ML-KEM-1024 ciphertext for the recipient in it |
//! | to the end | the keys, AES-256-GCM, the tag of 16 bytes last |
//!
//! The shared secret of ML-KEM (FIPS 203) goes through HKDF-SHA-384 (RFC 5869), without salt and with everything before the
//! keys as its info, and gives the one key of AES-256-GCM (NIST SP 800-38D), which is used once and so with a nonce of
//! zeros; everything before the keys is authenticated with them. Who has the file learns the node's name, the time, the
//! number of keys and who the recipient is. The file is not signed: whoever has the recipient's public key can make one.

mod contents;
mod error;
mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod operator;

pub use contents::EscrowedKey;
pub use error::Error;
pub use file::{EscrowFile, FILE_LIMIT, Header, seal};
pub use operator::{OperatorKey, PEM_LIMIT, Recipient};
