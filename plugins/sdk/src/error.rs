//! Why a plugin cannot serve.

use std::io;
use std::path::PathBuf;

/// Why a plugin could not start or had to stop; SPIRE sees it in its log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No socket could be made.
    #[error("no socket in {}: {source}. Is the directory writable? TMPDIR names another", parent.display())]
    Socket {
        /// The directory tried.
        parent: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SPIRE could not be told where the socket is.
    #[error("cannot print the handshake: {0}")]
    Handshake(#[source] io::Error),
    /// Signals could not be set aside.
    #[error("cannot handle signals: {0}")]
    Signal(#[source] io::Error),
    /// The gRPC server failed.
    #[error("cannot serve: {0}")]
    Serve(#[source] tonic::transport::Error),
}
