//! Which token, how to reach it, and how to start a worker.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keyd_core::{BoxFuture, Failure, Reason, Secret};

use crate::mechanisms::Mechanisms;

/// Most sessions a token is given.
pub const SESSIONS_LIMIT: usize = 64;
/// Longest PIN, in bytes.
pub(crate) const PIN_LIMIT: usize = 256;

/// A token and how to use it.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// The vendor's module, a shared library.
    pub module: PathBuf,
    /// Which of the module's tokens.
    pub token: TokenName,
    /// The user PIN, asked for when the token is first used. It reaches the worker over its socket, never as an argument or
    /// in the environment.
    pub pin: Arc<dyn PinSource>,
    /// The worker's whole environment, such as `SOFTHSM2_CONF`; it inherits nothing else.
    pub environment: BTreeMap<String, String>,
    /// How many sessions work at once, 1 to 64.
    pub sessions: usize,
    /// How long a call may take. A worker that does not answer for so long is killed and replaced.
    pub call_deadline: Duration,
    /// The token's own numbers for algorithms that it knows by vendor-defined ones.
    pub mechanisms: Mechanisms,
}

/// Where a user PIN is kept: as a rule in a [`Secret`] itself, or in a device that may be away now and come later.
pub trait PinSource: fmt::Debug + Send + Sync {
    /// The PIN, UTF-8 of at most 256 bytes.
    ///
    /// # Errors
    /// Why it cannot be had now.
    fn pin(&self) -> BoxFuture<'_, Result<Secret, Failure>>;
}

/// How a token is found among those that a module shows. Slot numbers change, so they are no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenName {
    /// By label, at most 32 bytes.
    Label(String),
    /// By serial number, at most 16 characters.
    Serial(String),
}

/// How a worker is started: a program and arguments that end in [`crate::worker::run`].
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    /// The program, as a rule this one (`/proc/self/exe`).
    pub program: PathBuf,
    /// Its arguments, such as `pkcs11-worker`; never a secret.
    pub args: Vec<String>,
}

impl TokenConfig {
    /// Refuses what no token could work with.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let wrong = if !(1..=SESSIONS_LIMIT).contains(&self.sessions) {
            format!("sessions is {}, and must be 1 to {SESSIONS_LIMIT}", self.sessions)
        } else if self.call_deadline.is_zero() {
            "the call deadline is zero".to_owned()
        } else if let Err(wrong) = self.mechanisms.check() {
            format!("mechanisms: {wrong}")
        } else {
            return Ok(());
        };
        Err(Failure::new(Reason::BadConfig, format!("{}: {wrong}", self.describe())))
    }

    /// The PIN, if a token could take it.
    pub(crate) async fn pin(&self) -> Result<Secret, Failure> {
        let pin = self.pin.pin().await?;
        if pin.len() > PIN_LIMIT || std::str::from_utf8(pin.expose()).is_err() {
            let why = format!("{}: the PIN must be UTF-8 of at most {PIN_LIMIT} bytes", self.describe());
            return Err(Failure::new(Reason::BadConfig, why));
        }
        Ok(pin)
    }

    /// The token as errors name it.
    pub(crate) fn describe(&self) -> String {
        format!("{} ({})", self.token, self.module.display())
    }
}

impl PinSource for Secret {
    fn pin(&self) -> BoxFuture<'_, Result<Secret, Failure>> {
        Box::pin(std::future::ready(Ok(self.clone())))
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "token {label:?}"),
            Self::Serial(serial) => write!(f, "token with serial number {serial:?}"),
        }
    }
}
