//! The whole line on real parts: what the demo and the tests of the whole both need.

pub mod issuance;
pub mod keyd;
pub mod minter;
pub mod openssl;
pub mod other_user;
pub mod spire;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::sync::Mutex;

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

/// Builds programs that a test of another package starts, once. Cargo builds those of a test's own package alone, and an
/// old one must not pass for the new.
///
/// # Errors
/// They do not build.
pub async fn build(packages: &'static [&'static str]) -> Result<()> {
    static BUILT: Mutex<BTreeSet<&[&str]>> = Mutex::const_new(BTreeSet::new());
    let mut built = BUILT.lock().await;
    if !built.contains(packages) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet"]).args(packages.iter().flat_map(|package| ["--package", package]));
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        ensure!(cargo.stdin(Stdio::null()).status().await?.success(), "{packages:?} do not build");
        built.insert(packages);
    }
    Ok(())
}
