//! Why there is no session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use keyd_core::{Failure, Reason};
use keyd_x509::{SpiffeId, TrustDomain, X509Error};
use rustls::{CertificateError, OtherError};

/// Why a handshake did not give a session, or its settings are no good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer broke a rule.
    #[error(transparent)]
    Refused(Refusal),
    /// This side has no identity to show.
    #[error("no identity yet: is the agent running, and does an entry name this workload?")]
    NoIdentity,
    /// This side's own identity ended.
    #[error("the own certificate of {id} has ended: is the agent running, and does it reach its server?")]
    IdentityExpired {
        /// Whose.
        id: SpiffeId,
    },
    /// This side's own identity does not fit the settings.
    #[error("the own identity of {id} is no good: {why}")]
    BadIdentity {
        /// Whose.
        id: SpiffeId,
        /// What is wrong with it.
        why: String,
    },
    /// An authority that may not be one.
    #[error("the bundle of {trust_domain} is refused: {why}")]
    BadBundle {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate that cannot be read.
    #[error(transparent)]
    X509(#[from] X509Error),
    /// Whoever holds the private key did not sign.
    #[error("the key of this side did not sign: {0}")]
    Signer(#[source] Failure),
    /// The handshake took longer than it may.
    #[error("the handshake did not end within {} ms", limit.as_millis())]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The connection broke, or the peer or rustls ended the handshake.
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
    /// The handshake ended well, yet not as it had to.
    #[error("the session is refused: {0}")]
    Session(&'static str),
    /// rustls does not take the settings.
    #[error("rustls refuses the settings")]
    Settings(#[source] rustls::Error),
    /// The threads for handshakes could not be started.
    #[error("cannot start the threads for handshakes")]
    Threads(#[source] io::Error),
}

/// A peer that was refused, and the rule that it broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is refused: {rule}", peer.as_ref().map_or("a peer without SPIFFE ID", SpiffeId::as_str))]
pub struct Refusal {
    /// Who it claims to be, where it presented a well-formed leaf. Not verified when the rule is one on its chain.
    pub peer: Option<SpiffeId>,
    /// The rule.
    pub rule: String,
}

impl TlsError {
    /// What a handshake's error is about; rustls's own errors travel inside of [`io::Error`].
    pub(crate) fn of_handshake(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) => {
                match inner.downcast_ref::<Refusal>() {
                    Some(refusal) => Self::Refused(refusal.clone()),
                    None => Self::Handshake(error),
                }
            }
            Some(rustls::Error::Other(OtherError(inner))) => match inner.downcast_ref::<Failure>() {
                Some(failure) => Self::Signer(failure.clone()),
                None => Self::Handshake(error),
            },
            Some(rustls::Error::NoCertificatesPresented) => {
                Self::Refused(Refusal { peer: None, rule: "it presented no certificate".to_owned() })
            }
            _ => Self::Handshake(error),
        }
    }
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        CertificateError::Other(OtherError(Arc::new(refusal))).into()
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        let reason = match &error {
            TlsError::Refused(_) | TlsError::Session(_) => Reason::Denied,
            TlsError::TimedOut { .. } => Reason::DeadlineExceeded,
            TlsError::NoIdentity | TlsError::IdentityExpired { .. } | TlsError::Handshake(_) => {
                Reason::Unreachable
            }
            TlsError::BadIdentity { .. } | TlsError::BadBundle { .. } | TlsError::X509(_) => {
                Reason::BadRequest
            }
            TlsError::Signer(failure) => failure.reason,
            TlsError::Settings(_) => Reason::BadConfig,
            TlsError::Threads(_) => Reason::Internal,
        };
        let cause = std::error::Error::source(&error).map(|s| format!(": {s}"));
        let cause = cause.filter(|_| !matches!(error, TlsError::Signer(_))).unwrap_or_default();
        Self::new(reason, format!("{error}{cause}"))
    }
}
