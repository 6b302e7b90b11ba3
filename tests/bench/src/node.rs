//! A keyd on a token and a TPM, for every row.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use keyd_core::Protection;
use peers::spire::{ServerConfig, SpireServer};
use peers::swtpm::Swtpm;
use peers::token::Token;
use system::keyd::{Keyd, allow, token_with_pin};
use system::spire::server_plugins;

/// The trust domain of every row.
pub const TRUST_DOMAIN: &str = "bench.example";

/// keyd and the devices it stands on, and a SPIRE server on keyd.
pub struct Node {
    /// The running keyd.
    pub keyd: Keyd,
    /// spire-server with its CA key, ML-DSA-65, sealed by the TPM.
    pub spire: SpireServer,
    /// A directory that goes when the node goes.
    pub dir: tempfile::TempDir,
    _tpm: Swtpm,
}

impl Node {
    /// Starts everything.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("keyd-bench-").tempdir()?;
        let home = dir.path().join("keyd");
        fs::create_dir_all(&home)?;
        let tpm_dir = dir.path().join("tpm");
        fs::create_dir_all(&tpm_dir)?;
        let tpm = Swtpm::start(&tpm_dir).context("swtpm")?;
        let token = Token::kryoptic(&home)?;
        let (hsm, sealed) = (&[Protection::Hsm][..], &[Protection::TpmSealed][..]);
        let config = token_with_pin(&token, &home)?
            + &format!("[tpm]\ntcti = {:?}\n", tpm.tcti())
            + &allow(
                &["create", "list", "show", "sign", "rotate", "delete", "bind", "status"],
                &[("hsm", hsm), ("sealed", sealed), ("spire-server", sealed), ("spire-root", sealed)],
            );
        let keyd = Keyd::start(&home, &config).await?;
        let root = home.join("root.pem");
        keyd.json(&["ca", "init", "--trust-domain", TRUST_DOMAIN, "--out", &root.display().to_string()])
            .await?;
        let config = ServerConfig::hcl(TRUST_DOMAIN, server_plugins(&keyd.socket(), &root)?)?;
        let spire = SpireServer::start(&spire_dir(&dir), &config).await?;
        Ok(Self { keyd, spire, dir, _tpm: tpm })
    }

    /// The directory of its SPIRE server.
    pub fn spire_dir(&self) -> PathBuf {
        spire_dir(&self.dir)
    }

    /// Stops keyd and then its devices.
    pub async fn stop(self) -> Result<()> {
        self.spire.stop().await?;
        self.keyd.stop().await
    }
}

fn spire_dir(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("spire")
}
