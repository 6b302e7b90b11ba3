//! What tokens a module shows, looked at by a worker of its own, without a PIN.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use keyd_core::{Failure, Reason};
use tokio::time::timeout;

use crate::config::WorkerCommand;
use crate::error::Error;
use crate::mechanisms::Mechanisms;
use crate::once::ask_once;
use crate::wire::{self, Answer, Task};

/// A token in one of a module's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownToken {
    /// The slot's number, which may change.
    pub slot: u64,
    /// CK_TOKEN_INFO.label.
    pub label: String,
    /// CK_TOKEN_INFO.serialNumber.
    pub serial: String,
    /// Maker, model and firmware, as the token says.
    pub product: String,
    /// How far it is from being used.
    pub state: TokenState,
    /// The algorithms that it makes keys for.
    pub algorithms: Vec<String>,
    /// Whether it has AES-GCM, which `hsm-wrapped` needs.
    pub wraps: bool,
}

/// How far a token is from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It has a user PIN.
    Ready,
    /// It was never initialised.
    Blank,
    /// It has a label and no user PIN.
    WithoutPin,
    /// Its user PIN allows one more try.
    FinalTry,
    /// Its user PIN is locked.
    Locked,
}

impl TokenState {
    /// The name that `keyd token list` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Blank => "blank",
            Self::WithoutPin => "without user PIN",
            Self::FinalTry => "one PIN try left",
            Self::Locked => "PIN locked",
        }
    }
}

/// The tokens that `module` shows. `environment` is the worker's whole environment; `mechanisms` are the tokens' own numbers.
///
/// # Errors
/// [`Reason::TokenAbsent`] where the module does not load, [`Reason::DeadlineExceeded`] where it takes longer than
/// `deadline`.
pub async fn list_tokens(
    worker: &WorkerCommand,
    module: &Path,
    environment: &BTreeMap<String, String>,
    mechanisms: &Mechanisms,
    deadline: Duration,
) -> Result<Vec<ShownToken>, Failure> {
    let name = format!("PKCS#11 module {}", module.display());
    let task = Task::Survey(wire::Survey {
        module: module.as_os_str().as_bytes().to_vec(),
        mechanisms: Some(mechanisms.into()),
    });
    let asked = timeout(deadline, ask_once(worker, environment, task, "")).await;
    match asked.unwrap_or(Err(Error::NoAnswer { after: deadline })).map_err(|e| e.into_failure(&name))? {
        Answer::Tokens(shown) => Ok(shown.tokens.into_iter().map(ShownToken::from).collect()),
        Answer::Failed(failed) => Err(Failure::from(&failed)),
        _ => Err(Failure::new(Reason::Internal, format!("{name}: the worker gave another answer"))),
    }
}

impl From<wire::ShownToken> for ShownToken {
    fn from(shown: wire::ShownToken) -> Self {
        let state = match shown.state() {
            wire::TokenState::Ready => TokenState::Ready,
            wire::TokenState::Blank => TokenState::Blank,
            wire::TokenState::WithoutPin => TokenState::WithoutPin,
            wire::TokenState::FinalTry => TokenState::FinalTry,
            wire::TokenState::Locked => TokenState::Locked,
        };
        let wire::ShownToken { slot, label, serial, product, algorithms, wraps, .. } = shown;
        Self { slot, label, serial, product, state, algorithms, wraps }
    }
}
