//! The TPM backend against a software TPM, with tpm2-tools and OpenSSL as second opinion.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod attestation;
mod bus;
mod connection;
mod counter;
mod faults;
mod policies;
mod sealing;

use std::process::Command;
use std::time::Duration;

use keyd_tpm::{Tpm, TpmConfig};
use peers::swtpm::Swtpm;
use tempfile::TempDir;

/// A software TPM with its directory.
struct Node {
    dir: TempDir,
    swtpm: Swtpm,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::start(dir.path()).unwrap();
        Self { dir, swtpm }
    }

    /// A new connection; the software TPM takes one at a time, so an earlier [`Tpm`] is dropped first.
    fn tpm(&self) -> Tpm {
        Tpm::open(self.config()).unwrap()
    }

    fn config(&self) -> TpmConfig {
        config(&self.swtpm.tcti())
    }

    /// Runs one of tpm2-tools; no connection may be open.
    fn tool(&self, name: &str, arguments: &[&str]) -> String {
        run(self.swtpm.tool(name).args(arguments).current_dir(self.dir.path()))
    }
}

fn config(tcti: &str) -> TpmConfig {
    TpmConfig { call_deadline: Duration::from_secs(20), ..TpmConfig::new(tcti.parse().unwrap()) }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
