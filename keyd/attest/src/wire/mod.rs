//! TPM 2.0 structures, read with bounds checked (TPM 2.0 Library, Part 2). Only what attestation meets is taken;
//! the rest is refused by name.

mod attest;
mod public;
mod reader;
mod signature;

pub use attest::{Attest, PcrSelection};
pub use public::{Attributes, Curve, Key, Public, Scheme};
pub(crate) use reader::{Reader, hash_id, put_sized};
pub use signature::Signature;
