//! The agent on real parts: spire-server, keyd with a token and a TPM, OpenSSL, and other clients of the Workload API.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod by_handle;
mod field;
mod offline;
mod refusals;
mod renewal;
mod standing;
mod workload_api;

use std::path::Path;

use keyd_x509::{Certificate, parse_pem_chain};

fn own_uid() -> String {
    format!("unix:uid:{}", nix::unistd::geteuid())
}

/// Certificates of a PEM file.
fn chain(file: &Path) -> Vec<Certificate> {
    parse_pem_chain("test", &std::fs::read(file).unwrap()).unwrap()
}

fn leaf_id(chain: &[Certificate]) -> String {
    chain[0].leaf_spiffe_id().unwrap().to_string()
}
