//! Real parts that tests run against: PKCS#11 tokens, a TPM simulator, SPIRE and OpenSSL.
//!
//! `tests/peers/install.sh` puts what no package brings into `target/peers`.

pub mod interposer;
pub mod openssl;
pub mod ports;
pub mod process;
pub mod spire;
pub mod swtpm;
pub mod token;

use std::path::{Path, PathBuf};

/// The root of this checkout.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// Where `tests/peers/install.sh` put the parts: `target/peers` of this checkout.
pub fn dir() -> PathBuf {
    root().join("target/peers")
}
