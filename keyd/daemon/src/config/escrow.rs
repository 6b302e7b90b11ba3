//! The `[escrow]` table.

use std::path::PathBuf;

use keyd_core::{Failure, Reason};
use keyd_escrow::{PEM_LIMIT, Recipient};
use keyd_unix::file;
use serde::Deserialize;

/// `[escrow]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscrowTable {
    /// PEM file with the operator's public key, ML-KEM-1024.
    pub recipient: PathBuf,
}

impl EscrowTable {
    /// Reads the recipient. Blocks on the disk.
    ///
    /// # Errors
    /// [`Reason::BadConfig`] naming the file.
    pub fn recipient(&self) -> Result<Recipient, Failure> {
        let name = self.recipient.display();
        let bad = |why: String| Failure::new(Reason::BadConfig, format!("[escrow] recipient {name}: {why}"));
        let pem = file::read(&self.recipient, PEM_LIMIT).map_err(|e| bad(format!("cannot read it: {e}")))?;
        Recipient::from_pem(&pem).map_err(|e| bad(e.to_string()))
    }
}
