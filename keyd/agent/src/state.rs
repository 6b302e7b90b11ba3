//! The state directory: the agent's own certificate chain and the bundle, as PEM files. Private keys are never here.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use keyd_core::{Failure, Reason};
use keyd_unix::file;
use keyd_x509::{Certificate, PEM_LIMIT, parse_pem_chain, to_pem};

use crate::error::AgentError;

/// A chain or bundle on disk, and when it was written.
pub type Kept = (Vec<Certificate>, SystemTime);

/// The directory. Its methods block on the disk: call them off the async workers.
#[derive(Clone, Debug)]
pub struct State {
    dir: PathBuf,
}

impl State {
    /// Opens the directory, or makes it.
    ///
    /// # Errors
    /// [`AgentError::File`], and [`Reason::BadConfig`] for one that others may open.
    pub fn open(dir: &Path) -> Result<Self, AgentError> {
        let failed = |source| AgentError::File { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let mode = fs::metadata(dir).map_err(failed)?.mode();
        if mode & 0o077 != 0 {
            let why = format!("{} is open to other users; chmod 700 {}", dir.display(), dir.display());
            return Err(Failure::new(Reason::BadConfig, why).into());
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// The agent's own chain, leaf first.
    ///
    /// # Errors
    /// [`AgentError::File`] or [`AgentError::X509`]; a file that is not there is no error.
    pub fn chain(&self) -> Result<Option<Kept>, AgentError> {
        read_certificates(&self.chain_file())
    }

    /// The bundle that the server gave last.
    ///
    /// # Errors
    /// See [`State::chain`].
    pub fn bundle(&self) -> Result<Option<Kept>, AgentError> {
        read_certificates(&self.bundle_file())
    }

    /// Keeps the agent's own chain; it is on disk when this returns.
    ///
    /// # Errors
    /// [`AgentError::File`].
    pub fn keep_chain(&self, chain: &[Certificate]) -> Result<(), AgentError> {
        self.keep(&self.chain_file(), chain)
    }

    /// Keeps the bundle; it is on disk when this returns.
    ///
    /// # Errors
    /// [`AgentError::File`].
    pub fn keep_bundle(&self, bundle: &[Certificate]) -> Result<(), AgentError> {
        self.keep(&self.bundle_file(), bundle)
    }

    /// Forgets the agent's own chain.
    ///
    /// # Errors
    /// [`AgentError::File`]; a file that is not there is no error.
    pub fn forget_chain(&self) -> Result<(), AgentError> {
        let path = self.chain_file();
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(AgentError::File { path, source }),
            _ => Ok(()),
        }
    }

    fn keep(&self, path: &Path, certificates: &[Certificate]) -> Result<(), AgentError> {
        let text = to_pem(certificates)?;
        file::replace(path, 0o600, text.as_bytes())
            .map_err(|source| AgentError::File { path: path.to_owned(), source })
    }

    fn chain_file(&self) -> PathBuf {
        self.dir.join("agent-svid.pem")
    }

    fn bundle_file(&self) -> PathBuf {
        self.dir.join("bundle.pem")
    }
}

/// PEM certificates of a file, and when it was written; `None` where there is no such file.
///
/// # Errors
/// [`AgentError::File`] or [`AgentError::X509`].
pub fn read_certificates(path: &Path) -> Result<Option<Kept>, AgentError> {
    let failed = |source| AgentError::File { path: path.to_owned(), source };
    let written = match fs::metadata(path).and_then(|found| found.modified()) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let text = file::read(path, PEM_LIMIT).map_err(failed)?;
    Ok(Some((parse_pem_chain(&path.display().to_string(), &text)?, written)))
}
