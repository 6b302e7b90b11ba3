//! The SPIRE server's host: a token, keyd on it, and the unmodified spire-server on keyd.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use keyd_core::Protection;
use peers::spire::{ServerConfig, SpireServer};
use peers::token::Token;
use system::issuance::profiles;
use system::keyd::{Keyd, allow, token_with_pin};
use system::spire::{attestation_plugins, server_plugins};

use crate::line::TRUST_DOMAIN;
use crate::node::Enrolment;

/// What runs on the server's host.
pub struct Server {
    dir: PathBuf,
    keyd: Option<Keyd>,
    spire: Option<SpireServer>,
    port: u16,
}

impl Server {
    /// Starts keyd on a kryoptic token.
    pub async fn start(dir: &Path) -> Result<(Self, String)> {
        fs::create_dir_all(dir)?;
        let token = Token::kryoptic(dir)?;
        let config = token_with_pin(&token, dir)?
            + &allow(
                &["create", "list", "show", "sign", "rotate", "delete", "bind", "status", "audit"],
                &["spire-root", "spire-server"].map(|name| (name, &[Protection::Hsm][..])),
            )
            + &profiles(TRUST_DOMAIN);
        let keyd = Keyd::start(dir, &config).await?;
        let status = keyd.json(&["status"]).await?;
        let device = &status["devices"][0];
        ensure!(device["state"] == "ok", "{device}");
        let proof = format!("token {:?}: {}", token.label, device["detail"].as_str().unwrap_or_default());
        let port = peers::spire::free_port()?;
        Ok((Self { dir: dir.to_owned(), keyd: Some(keyd), spire: None, port }, proof))
    }

    /// Makes the trust domain's root in the token.
    pub async fn make_root(&self) -> Result<String> {
        let file = self.root_certificate().display().to_string();
        let made = self.keyd()?.json(&["ca", "init", "--trust-domain", TRUST_DOMAIN, "--out", &file]).await?;
        ensure!(made["protection"] == "hsm" && made["algorithm"] == "ml-dsa-87", "{made}");
        Ok(format!("ML-DSA-87 key spire-root/root, made in the token; its certificate is {file}"))
    }

    /// Starts spire-server with every one of keyd's plugins.
    pub async fn start_spire(&mut self, enrolment: &Enrolment) -> Result<String> {
        let socket = self.keyd()?.socket();
        let plugins = server_plugins(&socket, &self.root_certificate())?
            + &attestation_plugins(&socket, &enrolment.manifests, &enrolment.ek_roots)?;
        let config = ServerConfig { port: self.port, ..ServerConfig::hcl(TRUST_DOMAIN, plugins)? };
        self.spire = Some(SpireServer::start(&self.spire_dir(), &config).await?);
        let ca = self.keyd()?.json(&["key", "show", "spire-server/x509-CA-A"]).await?;
        ensure!(ca["algorithm"] == "ml-dsa-65" && ca["protection"] == "hsm", "{ca}");
        Ok("unmodified 1.15.3; its CA key spire-server/x509-CA-A is ML-DSA-65 in the token, under the root"
            .to_owned())
    }

    /// Entries for the demo's workloads, all of this user, below the agent.
    pub async fn entries(&self, agent_id: &str) -> Result<()> {
        let selector = format!("unix:uid:{}", nix::unistd::geteuid());
        for name in ["web", "client", "stranger"] {
            let id = format!("spiffe://{TRUST_DOMAIN}/{name}");
            self.spire()?.entry_create(agent_id, &id, &[&selector]).await?;
        }
        Ok(())
    }

    /// Kills keyd as a crash would, and starts it again.
    pub async fn crash_keyd(&mut self) -> Result<()> {
        self.keyd.take().context("keyd is not up")?.kill().await?;
        self.keyd = Some(Keyd::restart(&self.dir).await?);
        Ok(())
    }

    /// Stops spire-server alone.
    pub async fn stop_spire(&mut self) -> Result<()> {
        self.spire.take().context("spire-server is not up")?.stop().await
    }

    /// Stops everything.
    pub async fn stop(&mut self) {
        if let Some(spire) = self.spire.take() {
            let _ = spire.stop().await;
        }
        if let Some(keyd) = self.keyd.take() {
            let _ = keyd.stop().await;
        }
    }

    /// The running spire-server.
    pub fn spire(&self) -> Result<&SpireServer> {
        self.spire.as_ref().context("spire-server is not up")
    }

    /// The running keyd.
    pub fn keyd(&self) -> Result<&Keyd> {
        self.keyd.as_ref().context("the server's keyd is not up")
    }

    /// keyd's socket.
    pub fn keyd_socket(&self) -> PathBuf {
        self.dir.join("keyd.sock")
    }

    /// spire-server's directory.
    pub fn spire_dir(&self) -> PathBuf {
        self.dir.join("spire")
    }

    /// Where agents reach spire-server.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The trust domain's root, PEM.
    pub fn root_certificate(&self) -> PathBuf {
        self.dir.join("root.pem")
    }
}
