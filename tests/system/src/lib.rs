//! The whole line on real parts: what the demo and the tests of the whole both need.

#[path = "../../../keyd/x509/tests/x509/forge.rs"]
pub mod forge;
pub mod issuance;
pub mod keyd;
pub mod minter;
pub mod openssl;
pub mod other_user;
pub mod spire;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// A binary of this workspace, beside the one that runs.
///
/// # Errors
/// It was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let mut dir = std::env::current_exe()?;
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    ensure!(path.exists(), "{} is missing; cargo build --workspace --bins", path.display());
    path.canonicalize().with_context(|| format!("{}", path.display()))
}
