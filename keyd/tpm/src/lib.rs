//! The TPM: sealing, and what attestation asks of a node's TPM.
//!
//! [`Tpm`] is a handle to one OS thread that owns the connection, because a TPM does one thing at a time and its
//! library blocks. Callers are async and wait with a deadline.
//!
//! libtss2 writes its own complaints to standard error, also for what is no error here (a handle that is looked for
//! and absent). Only the environment silences it; see [`LOG_VARIABLE`].

mod activate;
mod ak;
mod blob;
mod code;
mod config;
mod connection;
mod counter;
mod ek;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod nv;
mod pcr;
mod policy;
mod policy_key;
mod primary;
mod queue;
mod quote;
mod release;
mod seal;
mod signed_policy;
mod srk;
mod tcti;
mod tpm;
mod user;
mod worker;

pub use config::TpmConfig;
pub use counter::Counter;
pub use ek::Endorsement;
pub use pcr::PcrValue;
pub use policy_key::PolicyKey;
pub use quote::Quote;
pub use release::SealTo;
pub use seal::Standing;
pub use signed_policy::{PolicySource, SIGNATURES_LIMIT, SignedPolicy, sign_policy};
pub use tcti::Tcti;
pub use tpm::{SECRET_LIMIT, Tpm};
pub use user::{on_behalf_of, user};

/// The environment variable, with its value, that keeps libtss2 from writing to standard error. libtss2 reads it when it
/// is first used, so it belongs into the environment that a process is started with: that of the unit, or the one that
/// the process executes itself anew with.
pub const LOG_VARIABLE: (&str, &str) = ("TSS2_LOG", "all+none");
