//! Preparing a blank token, in a worker of its own.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use keyd_core::{Failure, Reason, Secret};
use tokio::time::timeout;

use crate::config::{PIN_LIMIT, TokenName, WorkerCommand};
use crate::error::Error;
use crate::once::ask_once;
use crate::wire::{self, Answer, Task};

/// Longest label of a token, in bytes (PKCS#11 §5.5.7, C_InitToken).
const LABEL_LIMIT: usize = 32;

/// A token to be.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The vendor's module.
    pub module: PathBuf,
    /// The worker's whole environment, as in [`crate::TokenConfig`].
    pub environment: BTreeMap<String, String>,
    /// The token's label, 1 to 32 bytes.
    pub label: String,
    /// PIN of the security officer, UTF-8.
    pub so_pin: Secret,
    /// PIN that keyd will use, UTF-8.
    pub user_pin: Secret,
    /// How long it may take.
    pub deadline: Duration,
}

/// What [`init_token`] found or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provisioned {
    /// A blank token now has the label and both PINs, or one left half-done has its user PIN.
    Initialised,
    /// A token of this label was there, and was left as it is.
    Existing,
}

/// Initialises the first blank token that the module shows. A token that holds anything is never initialised
/// anew, and one that has the label already is left alone, so this may be run again.
///
/// # Errors
/// [`Reason::TokenAbsent`] where no blank token is to be had, [`Reason::TokenLockedOut`] where the token refuses a
/// PIN (each is tried once), [`Reason::BadRequest`] for a label or PIN out of bounds.
pub async fn init_token(worker: &WorkerCommand, token: &NewToken) -> Result<Provisioned, Failure> {
    let name = format!("{} ({})", TokenName::Label(token.label.clone()), token.module.display());
    let result = match check(token) {
        Ok(()) => timeout(token.deadline, ask(worker, token))
            .await
            .unwrap_or(Err(Error::NoAnswer { after: token.deadline })),
        Err(error) => Err(error),
    };
    match result.map_err(|error| error.into_failure(&name))? {
        Answer::Provisioned(true) => Ok(Provisioned::Initialised),
        Answer::Provisioned(false) => Ok(Provisioned::Existing),
        Answer::Failed(failed) => Err(Failure::from(&failed)),
        _ => Err(Failure::new(Reason::Internal, format!("{name}: the worker gave another answer"))),
    }
}

fn check(token: &NewToken) -> Result<(), Error> {
    let refuse = |message: &str| Err(Error::BadRequest { message: message.to_owned() });
    let good =
        |pin: &Secret| (1..=PIN_LIMIT).contains(&pin.len()) && std::str::from_utf8(pin.expose()).is_ok();
    if !(1..=LABEL_LIMIT).contains(&token.label.len()) {
        return refuse("a label has 1 to 32 bytes");
    }
    if !good(&token.so_pin) || !good(&token.user_pin) {
        return refuse("a PIN has 1 to 256 bytes of UTF-8");
    }
    Ok(())
}

async fn ask(worker: &WorkerCommand, token: &NewToken) -> Result<Answer, Error> {
    let task = Task::Provision(wire::Provision {
        module: token.module.as_os_str().as_bytes().to_vec(),
        label: token.label.clone(),
        so_pin: token.so_pin.expose().to_vec(),
        user_pin: token.user_pin.expose().to_vec(),
    });
    // Dropped at the deadline, which kills it.
    ask_once(worker, &token.environment, task, "; the token may be half-initialised").await
}
