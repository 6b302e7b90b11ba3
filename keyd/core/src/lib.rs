//! What every other part of keyd agrees on: algorithms, key ids, protection levels, policy, public keys,
//! failures with a reason, and the two kinds of place where a private key can live.
//!
//! Nothing in here opens a file, a socket or a device.

mod algorithm;
mod backend;
pub mod config;
pub mod crypto;
mod failure;
mod hash;
mod input;
mod key_id;
mod policy;
mod protection;
mod public_key;
mod secret;
mod suggest;

pub use algorithm::{Algorithm, Family, SHARED_SECRET_LEN};
pub use backend::{BoxFuture, Health, HealthState, HeldKey, Sealer, Vault, VaultKey};
pub use failure::{Failure, Reason};
pub use hash::Hash;
pub use input::{RsaPadding, SignInput};
pub use key_id::{KeyId, KeyName, Namespace};
pub use policy::{Caller, Operation, Policy, Rule};
pub use protection::Protection;
pub use public_key::{PublicKey, SignatureError};
pub use secret::Secret;
pub use suggest::nearest;
