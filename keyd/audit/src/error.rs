//! What can be wrong with the log.

use std::io;
use std::path::PathBuf;

use keyd_core::{Failure, Reason};

use crate::Broken;

/// Why the log was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The file system refused.
    #[error("{path}: {what}: {source}", path = path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The chain is broken.
    #[error("{path}: {broken}", path = path.display())]
    Broken {
        /// In which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        broken: Broken,
    },
    /// There is no log.
    #[error("{path}: there is no audit log", path = path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A record that cannot be written, or a log in a state that it should not be in.
    #[error("{path}: {why}", path = path.display())]
    Refused {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Broken { .. } => {
                Self::new(Reason::Integrity, format!("the audit log is broken: {error}"))
            }
            AuditError::Missing { .. } => Self::new(Reason::BadRequest, error.to_string()),
            AuditError::Io { .. } | AuditError::Refused { .. } => {
                Self::new(Reason::AuditFailed, format!("the audit log failed: {error}"))
            }
        }
    }
}
