//! What can go wrong between the agent, its server and its keys.

use std::io;
use std::path::PathBuf;

use keyd_core::{Failure, Reason};
use keyd_tls::TlsError;
use keyd_x509::X509Error;
use tonic::Code;

/// Why the agent could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// No connection, or it broke.
    #[error("cannot reach the SPIRE server at {address}: {why}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// The deepest cause, in words.
        why: String,
    },
    /// Connected, and then nothing.
    #[error("the SPIRE server at {address} did not answer {call} within {seconds} s")]
    Silent {
        /// `host:port`.
        address: String,
        /// The call.
        call: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// The server said no.
    #[error("the SPIRE server refused {call}: {message} ({code})")]
    Refused {
        /// The call.
        call: &'static str,
        /// gRPC's code.
        code: Code,
        /// The server's words.
        message: String,
        /// What it holds against this agent.
        standing: Standing,
    },
    /// The server's answer makes no sense.
    #[error("the SPIRE server's answer to {call} is refused: {why}")]
    Answer {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file of the agent's own.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// keyd, or its TPM or token.
    #[error(transparent)]
    Keyd(#[from] Failure),
    /// The attestation's messages.
    #[error("attestation: {0}")]
    Attestation(#[from] keyd_attest::Refusal),
    /// A certificate or request.
    #[error(transparent)]
    X509(#[from] X509Error),
    /// TLS settings, an identity or a bundle.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// How the server sees this agent, as a PERMISSION_DENIED tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known against it.
    Good,
    /// It must attest again: its SVID ended or was replaced, it was evicted, or it has to renew.
    MustAttest,
    /// It is banned.
    Banned,
}

impl AgentError {
    /// How the server sees this agent after this error.
    pub fn standing(&self) -> Standing {
        match self {
            Self::Refused { standing, .. } => *standing,
            _ => Standing::Good,
        }
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        let reason = match &error {
            AgentError::Unreachable { .. } => Reason::Unreachable,
            AgentError::Silent { .. } => Reason::DeadlineExceeded,
            AgentError::Refused { .. } => Reason::Denied,
            AgentError::Answer { .. } => Reason::BadRequest,
            AgentError::File { .. } => Reason::StoreFailed,
            AgentError::Keyd(failure) => return failure.clone(),
            AgentError::Attestation(_) => Reason::TpmFailed,
            AgentError::X509(_) | AgentError::Tls(_) => Reason::BadRequest,
        };
        let cause = match &error {
            AgentError::File { source, .. } => format!(": {source}"),
            _ => String::new(),
        };
        Self::new(reason, format!("{error}{cause}"))
    }
}
