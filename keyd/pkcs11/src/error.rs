//! What can go wrong with a token, and how each is told to a user.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cryptoki::error::{Error as Cryptoki, RvError};
use keyd_core::{Algorithm, Failure, Reason};

use crate::said::Said;
use crate::wire::Failed;

/// What went wrong. The token itself is named when this becomes a [`Failure`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error("cannot load the module: {}. Is it installed, and is its path right in the configuration?", Said(.source))]
    ModuleUnusable { source: Cryptoki },
    #[error(
        "the module shows no such token{}. Plug it in, or correct the name in the configuration; keyd finds it \
         then by itself.",
        shown(.present)
    )]
    NoSuchToken { present: Vec<String> },
    #[error(
        "the module shows {} such tokens, and keyd takes none of them: {}. Name one of them by its {other} in the \
         configuration, or unplug the others; keyd goes on then by itself.",
        .present.len(), .present.join(", ")
    )]
    SeveralTokens { present: Vec<String>, other: &'static str },
    #[error("no slot of the module holds a blank token{}. Insert one, or free a slot.", shown(.present))]
    NoBlankToken { present: Vec<String> },
    #[error(
        "the token refused the PIN ({why}); keyd does not try it again, because tries are few. Correct the PIN \
         file, then restart keyd."
    )]
    PinRefused { why: String },
    #[error(
        "the token allows one more try of the PIN, and keyd leaves it to you. Log in with another tool, which \
         resets the count, then restart keyd."
    )]
    PinFinalTry,
    #[error(
        "the user PIN is locked, and was not tried. Set it anew as security officer with the vendor's tool, then \
         restart keyd."
    )]
    PinLocked,
    #[error("the token has no user PIN yet. Run `keyd token init`.")]
    PinNotSet,
    #[error("the token did not say whether the PIN is right ({why})")]
    PinUnjudged { why: String },
    #[error(
        "the token did not say whether the PIN is right ({why}); keyd does not try one again that may be wrong, \
         because tries are few. Look after the token and the PIN file, then restart keyd."
    )]
    PinUnconfirmed { why: String },
    #[error(
        "the PKCS#11 worker ended while the token checked the PIN, {attempts}; keyd does not try it again, because \
         tries are few. Look after the token and the PIN file, then restart keyd."
    )]
    PinUnanswered { attempts: &'static str },
    #[error("the token holds no private key with CKA_ID {id}. Was it deleted with another tool?")]
    KeyNotFound { id: String },
    #[error(
        "the token holds {count} objects that should be one: {what}. Remove those that keyd did not make."
    )]
    Ambiguous { what: String, count: usize },
    #[error("the token does not make {algorithm} keys")]
    Unsupported { algorithm: Algorithm },
    #[error("the token has no AES-GCM that is of use, so it cannot wrap")]
    CannotWrap,
    #[error("{what} is not sensitive and non-extractable, so it protects nothing")]
    Exposed { what: String },
    #[error("{what} that the token gave is malformed")]
    Malformed { what: &'static str },
    #[error(
        "the wrapped secret did not open: it is damaged, or it was wrapped for another key or by another token"
    )]
    DidNotOpen { source: Option<Cryptoki> },
    #[error(
        "the wrapped secret did not open: the token does not hold the {:?} that wrapped it. Was it initialised anew?",
        crate::WRAPPING_KEY
    )]
    NoWrappingKey,
    #[error("a secret that was just wrapped does not open again")]
    WrapBroken,
    #[error("the token does not decapsulate what was encapsulated for the key that it just made")]
    PairBroken,
    #[error("{message}")]
    BadRequest { message: String },
    #[error("{doing} failed: {}", Said(.source))]
    Token { doing: &'static str, source: Cryptoki },
    #[error(
        "{source}; an object with CKA_ID {id} could not be removed ({}). `keyd doctor` lists it.",
        Said(.cleanup)
    )]
    LeftBehind { id: String, cleanup: Cryptoki, source: Box<Error> },
    #[error("cannot start the PKCS#11 worker {program}: {source}")]
    WorkerNotStarted { program: PathBuf, source: io::Error },
    #[error("the PKCS#11 worker died during the call{left}. Try again; keyd starts a new one by itself")]
    WorkerDied { left: String },
    #[error("no answer within {after:?}. The token hangs or is overloaded.")]
    NoAnswer { after: Duration },
    #[error(
        "no PIN within {after:?}: what sealed it has not opened it yet. Try again; `keyd status` tells how the TPM is."
    )]
    NoPin { after: Duration },
    #[error("the PKCS#11 worker and keyd do not understand each other: {what}")]
    Protocol { what: String },
}

impl Error {
    /// For `map_err`: a call to the token that failed while `doing` something.
    pub fn token(doing: &'static str) -> impl Fn(Cryptoki) -> Self {
        move |source| Self::Token { doing, source }
    }

    /// As a user sees it. `token` names the token.
    pub fn into_failure(self, token: &str) -> Failure {
        Failure::new(self.reason(), format!("{token}: {self}"))
    }

    /// As a worker sends it.
    pub fn into_failed(self, token: &str) -> Failed {
        let retire = self.wants_new_worker();
        let Failure { reason, message } = self.into_failure(token);
        Failed { reason: reason.name().to_owned(), message, retire }
    }

    fn reason(&self) -> Reason {
        match self {
            Self::ModuleUnusable { .. }
            | Self::NoSuchToken { .. }
            | Self::SeveralTokens { .. }
            | Self::NoBlankToken { .. } => Reason::TokenAbsent,
            Self::PinRefused { .. }
            | Self::PinFinalTry
            | Self::PinLocked
            | Self::PinUnconfirmed { .. }
            | Self::PinUnanswered { .. } => Reason::TokenLockedOut,
            Self::KeyNotFound { .. } => Reason::KeyNotFound,
            Self::Unsupported { .. } | Self::CannotWrap => Reason::ProtectionUnavailable,
            Self::DidNotOpen { .. } | Self::NoWrappingKey => Reason::UnsealFailed,
            Self::WrapBroken | Self::PairBroken => Reason::Integrity,
            Self::BadRequest { .. } => Reason::BadRequest,
            Self::NoAnswer { .. } | Self::NoPin { .. } => Reason::DeadlineExceeded,
            Self::Protocol { .. } => Reason::Internal,
            Self::LeftBehind { source, .. } => source.reason(),
            Self::Token { source, .. } if is(source, GONE) => Reason::TokenAbsent,
            Self::Token { source, .. } if is(source, BROKEN) => Reason::TokenInterrupted,
            Self::WorkerDied { .. } => Reason::TokenInterrupted,
            Self::PinNotSet
            | Self::PinUnjudged { .. }
            | Self::Ambiguous { .. }
            | Self::Exposed { .. }
            | Self::Malformed { .. }
            | Self::Token { .. }
            | Self::WorkerNotStarted { .. } => Reason::TokenFailed,
        }
    }

    /// Whether only a fresh C_Initialize can help. Some modules notice a token that came back in no other way.
    fn wants_new_worker(&self) -> bool {
        match self {
            Self::ModuleUnusable { .. }
            | Self::NoSuchToken { .. }
            | Self::SeveralTokens { .. }
            | Self::PinUnjudged { .. } => true,
            Self::Token { source, .. } => is(source, GONE) || is(source, BROKEN),
            Self::LeftBehind { source, .. } => source.wants_new_worker(),
            _ => false,
        }
    }

    /// Whether the same call may succeed in a new session.
    pub fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Token { source, .. }
            if [LOST_SESSION, GONE, BROKEN, STALE].into_iter().any(|codes| is(source, codes)))
    }
}

/// The token is out of its slot.
pub(crate) const GONE: &[RvError] =
    &[RvError::DeviceRemoved, RvError::TokenNotPresent, RvError::TokenNotRecognized, RvError::SlotIdInvalid];

/// The module's state is of no use.
const BROKEN: &[RvError] = &[RvError::DeviceError, RvError::CryptokiNotInitialized, RvError::HostMemory];

/// The session or its login is gone; the call did nothing.
const LOST_SESSION: &[RvError] =
    &[RvError::SessionHandleInvalid, RvError::SessionClosed, RvError::UserNotLoggedIn];

/// A handle or an operation from before; or a code that some modules give for these.
const STALE: &[RvError] = &[
    RvError::KeyHandleInvalid,
    RvError::ObjectHandleInvalid,
    RvError::OperationActive,
    RvError::OperationNotInitialized,
    RvError::GeneralError,
    RvError::FunctionFailed,
    // Of a full token, but also of a store that a session sees damaged.
    RvError::DeviceMemory,
];

/// The token has no such mechanism, or not for these parameters.
pub(crate) const NO_MECHANISM: &[RvError] = &[
    RvError::MechanismInvalid,
    RvError::MechanismParamInvalid,
    RvError::FunctionNotSupported,
    RvError::CurveNotSupported,
];

/// The PIN was judged, or may not be presented at all.
pub(crate) const PIN: &[RvError] = &[
    RvError::PinIncorrect,
    RvError::PinInvalid,
    RvError::PinLenRange,
    RvError::PinExpired,
    RvError::PinLocked,
];

/// C_Login did not come to look at the PIN, if the module is to be believed; of a PIN that was accepted before it is. Not
/// so sure are a device error, a failure without a cause, and whatever a vendor made up: these may hide a PIN that was
/// found wrong and counted.
pub(crate) const NOT_JUDGED: &[RvError] = &[
    RvError::SessionHandleInvalid,
    RvError::SessionClosed,
    RvError::UserNotLoggedIn,
    RvError::CryptokiNotInitialized,
    RvError::HostMemory,
    RvError::OperationActive,
    RvError::OperationNotInitialized,
];

/// Whether a call returned one of `codes`.
pub(crate) fn is(error: &Cryptoki, codes: &[RvError]) -> bool {
    matches!(error, Cryptoki::Pkcs11(code, _) if codes.contains(code))
}

fn shown(present: &[String]) -> String {
    match present {
        [] => "; it shows none at all".to_owned(),
        names => format!("; it shows {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    fn returned(code: RvError) -> Error {
        Error::Token { doing: "signing", source: Cryptoki::Pkcs11(code, Function::Sign) }
    }

    #[test]
    fn a_removed_token_is_absent_and_wants_a_new_worker() {
        let failed = returned(RvError::DeviceRemoved).into_failed("token \"a\"");
        assert_eq!(failed.reason, Reason::TokenAbsent.name());
        assert!(failed.retire && failed.message.starts_with("token \"a\": signing failed"), "{failed:?}");
    }

    #[test]
    fn a_key_that_fails_for_itself_costs_no_worker() {
        let failed = returned(RvError::GeneralError).into_failed("t");
        assert_eq!((failed.reason.as_str(), failed.retire), (Reason::TokenFailed.name(), false));
    }

    #[test]
    fn what_a_new_session_may_mend_is_worth_a_retry() {
        for code in [
            RvError::SessionHandleInvalid,
            RvError::DeviceError,
            RvError::GeneralError,
            RvError::DeviceRemoved,
        ] {
            assert!(returned(code).is_worth_a_retry(), "{code:?}");
        }
        assert!(!returned(RvError::DataLenRange).is_worth_a_retry());
    }
}
