//! PKCS#11 tokens, each behind a worker process.
//!
//! A vendor's PKCS#11 module is foreign code: it may crash, leak or hang. It is therefore loaded by a worker, the
//! same program started again, and never by the process that serves keys. Calls go to the worker over Unix sockets,
//! one for each of its sessions; a worker that dies or hangs is replaced, and no caller waits longer than its deadline.
//!
//! [`Token`] is the side that serves, [`worker::run`] the side that loads the module, and [`init_token`] prepares
//! a blank token.
//!
//! A signature comes back as the token made it. Whoever knows the public key must verify it before it leaves
//! (`keyd_core::PublicKey::verify`): a faulty token can return a signature that gives the key away.

mod config;
mod ecdsa;
mod error;
mod exchange;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod link;
mod mechanisms;
mod once;
mod pin_gate;
mod process;
mod provision;
mod rsa;
mod said;
mod signing;
mod supervisor;
mod survey;
mod token;
mod wire;
pub mod worker;

pub use config::{PinSource, SESSIONS_LIMIT, TokenConfig, TokenName, WorkerCommand};
pub use mechanisms::{Mechanisms, VENDOR_DEFINED, VendorNumbers};
pub use provision::{NewToken, Provisioned, init_token};
pub use survey::{ShownToken, TokenState, list_tokens};
pub use token::{HANDLE_LEN, ObjectKind, Token, TokenObject};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Label of the token's AES key that wraps secrets.
const WRAPPING_KEY: &str = "keyd wrapping key";

/// Locks a mutex whose data no panic can leave half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
