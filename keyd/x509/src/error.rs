//! What can be wrong with a certificate, a request or a SPIFFE ID.

use keyd_core::{Failure, Reason};

/// Why something was not built or not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum X509Error {
    /// Not DER, or not the structure that was expected.
    #[error("{what} is not valid DER")]
    Der {
        /// What was read or written.
        what: &'static str,
        /// Where it went wrong.
        #[source]
        source: der::Error,
    },
    /// Not PEM, or PEM of another kind.
    #[error("{what}: {why}")]
    Pem {
        /// What was read.
        what: String,
        /// Why it is not what was expected.
        why: String,
    },
    /// More bytes than the named limit.
    #[error("{what} has {length} bytes, more than {limit}")]
    TooLong {
        /// What was read.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A string that is no SPIFFE ID or trust domain.
    #[error("{text:?} is not a {what}: {why}")]
    SpiffeId {
        /// `SPIFFE ID`, `SPIFFE ID pattern` or `trust domain`.
        what: &'static str,
        /// What was given, cut at 80 characters.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A well-formed certificate or request that breaks a rule.
    #[error("{what} is refused: {why}")]
    Refused {
        /// What was judged.
        what: &'static str,
        /// The rule that it breaks.
        why: String,
    },
    /// The signer failed.
    #[error(transparent)]
    Signer(#[from] Failure),
}

impl X509Error {
    pub(crate) fn der(what: &'static str) -> impl Fn(der::Error) -> Self {
        move |source| Self::Der { what, source }
    }

    pub(crate) fn refused(what: &'static str, why: impl Into<String>) -> Self {
        Self::Refused { what, why: why.into() }
    }
}

impl From<X509Error> for Failure {
    fn from(error: X509Error) -> Self {
        match error {
            X509Error::Signer(failure) => failure,
            X509Error::Der { what, source } => {
                Self::new(Reason::BadRequest, format!("{what} is not valid DER: {source}"))
            }
            other => Self::new(Reason::BadRequest, other.to_string()),
        }
    }
}
