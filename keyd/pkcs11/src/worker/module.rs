//! The vendor's module: loading, finding the token, and logging in at most once too often.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::RvError;
use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use super::News;
use super::dialect::Dialect;
use super::wrapping_keys::{self, WrappingKeys};
use crate::config::TokenName;
use crate::error::{self, Error};
use crate::lock;
use crate::said::Said;
use crate::wire::{Answer, PinNews, Serve};

/// Most key handles remembered.
const HANDLES_LIMIT: usize = 4096;

/// The module, shared by all session threads.
pub(super) struct Module {
    path: PathBuf,
    token: TokenName,
    pin: AuthPin,
    /// How the token knows each algorithm.
    pub dialect: Dialect,
    news: News,
    context: Mutex<Option<Pkcs11>>,
    gate: Mutex<Gate>,
    /// CKA_ID to private key. Handles of token objects hold across sessions, as long as the login lasts.
    handles: Mutex<HashMap<Vec<u8>, ObjectHandle>>,
    /// Held while a wrapping key is made, so that it is made once.
    pub wrapping: Mutex<WrappingKeys>,
}

/// Whether the PIN may still be presented.
enum Gate {
    Open {
        /// Whether the token took it before, from this worker or an earlier one.
        accepted: bool,
    },
    /// What the token said, as every later call is told.
    Refused(String),
    /// The token gave no verdict on a PIN that it never took, which may have cost a try.
    Unconfirmed(String),
    /// The token gave no verdict. Whether to try again is for keyd to decide, with a new worker.
    Unjudged(String),
}

impl Module {
    /// Takes over what `serve` says. Nothing is loaded yet.
    pub fn new(serve: &mut Serve, news: News) -> io::Result<Self> {
        let token = match (serve.label.take(), serve.serial.take()) {
            (Some(label), None) => TokenName::Label(label),
            (None, Some(serial)) => TokenName::Serial(serial),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a token has a label or a serial number",
                ));
            }
        };
        Ok(Self {
            path: OsString::from_vec(std::mem::take(&mut serve.module)).into(),
            token,
            pin: auth_pin(&serve.pin)?,
            dialect: Dialect::new(serve.mechanisms.take().unwrap_or_default().into()),
            news,
            context: Mutex::default(),
            gate: Mutex::new(Gate::Open { accepted: serve.pin_accepted }),
            handles: Mutex::default(),
            wrapping: Mutex::default(),
        })
    }

    /// The token as errors name it.
    pub fn name(&self) -> String {
        format!("{} ({})", self.token, self.path.display())
    }

    /// A session that is logged in.
    pub fn open(&self) -> Result<Session, Error> {
        let context = self.context()?;
        let slot = self.slot(&context)?;
        let session = context.open_rw_session(slot).map_err(Error::token("opening a session"))?;
        self.login(&context, slot, &session)?;
        Ok(session)
    }

    /// The module, loaded and initialised once.
    pub fn context(&self) -> Result<Pkcs11, Error> {
        let mut context = lock(&self.context);
        if context.is_none() {
            *context = Some(load(&self.path)?);
        }
        context.clone().ok_or_else(|| Error::Protocol { what: "no module".to_owned() })
    }

    /// The slot that holds the token now.
    pub fn slot(&self, context: &Pkcs11) -> Result<Slot, Error> {
        find_slot(context, &self.token)?.map_err(|present| Error::NoSuchToken { present })
    }

    /// The private key with this CKA_ID, searched with `find` unless it is known.
    pub fn private_key(
        &self,
        id: &[u8],
        find: impl FnOnce() -> Result<ObjectHandle, Error>,
    ) -> Result<ObjectHandle, Error> {
        if let Some(handle) = lock(&self.handles).get(id) {
            return Ok(*handle);
        }
        let found = find()?;
        let mut handles = lock(&self.handles);
        if handles.len() >= HANDLES_LIMIT {
            handles.clear();
        }
        handles.insert(id.to_vec(), found);
        Ok(found)
    }

    /// Forgets a handle: its key is gone, or it failed.
    pub fn forget(&self, id: &[u8]) {
        lock(&self.handles).remove(id);
    }

    /// Logs in, unless another session has: login is the application's. One thread at a time, and never again
    /// after a refusal.
    fn login(&self, context: &Pkcs11, slot: Slot, session: &Session) -> Result<(), Error> {
        let mut gate = lock(&self.gate);
        let accepted = match &*gate {
            Gate::Open { accepted } => *accepted,
            shut => return shut.pass(),
        };
        if is_logged_in(session).map_err(Error::token("asking for the session's state"))? {
            return Ok(());
        }
        self.check_tries(context, slot)?;
        *gate = self.present(session, accepted)?;
        gate.pass()
    }

    /// Refuses where a wrong PIN would lock the token, or nothing can be right.
    fn check_tries(&self, context: &Pkcs11, slot: Slot) -> Result<(), Error> {
        let info = context.get_token_info(slot).map_err(Error::token("asking for the token's state"))?;
        if !info.user_pin_initialized() {
            return Err(Error::PinNotSet);
        }
        if info.user_pin_locked() {
            self.news.tell(Answer::Failed(Error::PinLocked.into_failed(&self.name())));
            return Err(Error::PinLocked);
        }
        if info.user_pin_final_try() {
            self.news.tell(Answer::Failed(Error::PinFinalTry.into_failed(&self.name())));
            return Err(Error::PinFinalTry);
        }
        Ok(())
    }

    /// Presents the PIN. What became of it is told to keyd before anything else can happen.
    ///
    /// Some modules answer a wrong PIN, which the token counted, with any code there is. So one that the token never took
    /// is not presented again after any answer but CKR_OK.
    fn present(&self, session: &Session, accepted: bool) -> Result<Gate, Error> {
        self.news.tell(Answer::Pin(PinNews::Tried.into()));
        let answer = session.login(UserType::User, Some(&self.pin));
        let why = |source| Said(source).to_string();
        match answer {
            Err(e) if error::is(&e, error::PIN) => Ok(self.shut(Gate::Refused(why(&e)))),
            // A wrong PIN logs nobody in, whatever else the module says of it.
            Err(e)
                if error::is(&e, &[RvError::UserAlreadyLoggedIn])
                    && is_logged_in(session).unwrap_or(false) =>
            {
                Ok(self.accept())
            }
            Err(e) if !accepted => Ok(self.shut(Gate::Unconfirmed(why(&e)))),
            Err(source) if error::is(&source, error::GONE) || error::is(&source, error::NOT_JUDGED) => {
                self.news.tell(Answer::Pin(PinNews::Untouched.into()));
                Err(Error::Token { doing: "logging in", source })
            }
            Err(e) => Ok(Gate::Unjudged(why(&e))),
            Ok(()) => Ok(self.accept()),
        }
    }

    fn accept(&self) -> Gate {
        self.news.tell(Answer::Pin(PinNews::Accepted.into()));
        lock(&self.handles).clear();
        wrapping_keys::forget(self);
        Gate::Open { accepted: true }
    }

    /// Tells keyd that the PIN is not to be presented again by any worker.
    fn shut(&self, gate: Gate) -> Gate {
        if let Err(refusal) = gate.pass() {
            self.news.tell(Answer::Failed(refusal.into_failed(&self.name())));
        }
        gate
    }
}

// === impl Gate ===

impl Gate {
    fn pass(&self) -> Result<(), Error> {
        match self {
            Self::Open { .. } => Ok(()),
            Self::Refused(why) => Err(Error::PinRefused { why: why.clone() }),
            Self::Unconfirmed(why) => Err(Error::PinUnconfirmed { why: why.clone() }),
            Self::Unjudged(why) => Err(Error::PinUnjudged { why: why.clone() }),
        }
    }
}

fn is_logged_in(session: &Session) -> Result<bool, cryptoki::error::Error> {
    let state = session.get_session_info()?.session_state();
    Ok(matches!(state, SessionState::RwUser | SessionState::RoUser))
}

/// Loads a module and initialises it for use by several threads.
pub(super) fn load(path: &Path) -> Result<Pkcs11, Error> {
    let unusable = |source| Error::ModuleUnusable { source };
    let context = Pkcs11::new(path).map_err(unusable)?;
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(unusable)?;
    Ok(context)
}

/// The slot of the initialised token with this name, or the names of those that there are.
///
/// # Errors
/// Several have the name: the PIN of one would cost another a try.
pub(super) fn find_slot(context: &Pkcs11, token: &TokenName) -> Result<Result<Slot, Vec<String>>, Error> {
    let (mut found, mut slots, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for slot in context.get_slots_with_token().map_err(Error::token("listing the slots"))? {
        // A token that cannot be asked must not hide the others.
        let Ok(info) = context.get_token_info(slot) else { continue };
        let wanted = match token {
            TokenName::Label(label) => info.label() == label,
            TokenName::Serial(serial) => info.serial_number() == serial,
        };
        let shown = format!("{:?} (serial number {:?})", info.label(), info.serial_number());
        if wanted && info.token_initialized() {
            slots.push(slot);
            found.push(shown);
        } else {
            others.push(shown);
        }
    }
    match slots.as_slice() {
        [] => Ok(Err(others)),
        [slot] => Ok(Ok(*slot)),
        _ => Err(Error::SeveralTokens {
            present: found,
            other: match token {
                TokenName::Label(_) => "serial number",
                TokenName::Serial(_) => "label",
            },
        }),
    }
}

/// A PIN as cryptoki takes it; wiped when dropped.
pub(super) fn auth_pin(bytes: &[u8]) -> io::Result<AuthPin> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a PIN is UTF-8"))?;
    Ok(AuthPin::new(text.into()))
}
