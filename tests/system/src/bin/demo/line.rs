//! The line, step by step.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use keyd_core::Algorithm;
use peers::spire::{ServerConfig, SpireServer};
use peers::token::Token;
use system::keyd::{Keyd, token_table, write_private};
use system::{openssl, spire};

use crate::report::Report;

const TRUST_DOMAIN: &str = "demo.example";

/// What runs at the moment.
#[derive(Default)]
pub struct Line {
    keyd: Option<Keyd>,
    server: Option<SpireServer>,
}

impl Line {
    /// Plays every step; stops at the first that does not hold.
    pub async fn play(&mut self, report: &mut Report) -> Result<()> {
        let out = report.out().to_owned();
        let dir = out.join("run");
        fs::create_dir_all(&dir)?;
        report.step("keyd is up on a token", self.keyd_on_token(&dir)).await?;
        report.step("the root is in the token", self.root(&dir)).await?;
        report.step("spire-server is up on keyd", self.spire_server(&dir)).await?;
        report.step("an SVID is minted and OpenSSL verifies it", self.mint(&out)).await
    }

    async fn keyd_on_token(&mut self, dir: &Path) -> Result<String> {
        let home = dir.join("server");
        fs::create_dir_all(&home)?;
        let token = Token::kryoptic(&home)?;
        let pin = home.join("pin");
        write_private(&pin, token.user_pin)?;
        let user = nix::unistd::geteuid();
        let config = token_table(&token, &pin)
            + &format!(
                r#"
[[namespace]]
name = "spire-root"
protections = ["hsm"]

[[namespace]]
name = "spire-server"
protections = ["hsm"]

[[allow]]
users = [{user}]
namespaces = ["spire-root", "spire-server"]
operations = ["create", "list", "show", "sign", "rotate", "delete", "bind", "status"]
"#
            );
        let keyd = Keyd::start(&home, &config).await?;
        let status = keyd.json(&["status"]).await?;
        let device = &status["devices"][0];
        ensure!(device["state"] == "ok", "{device}");
        self.keyd = Some(keyd);
        Ok(format!("{}: {}", text(&device["device"]), text(&device["detail"])))
    }

    async fn root(&mut self, dir: &Path) -> Result<String> {
        let file = root_certificate(dir);
        let made = self
            .keyd()?
            .json(&["ca", "init", "--trust-domain", TRUST_DOMAIN, "--out", &file.display().to_string()])
            .await?;
        ensure!(made["protection"] == "hsm" && made["algorithm"] == "ml-dsa-87", "{made}");
        Ok(format!(
            "{} {} made in the token, certificate in {}",
            text(&made["algorithm"]),
            text(&made["key"]),
            file.display()
        ))
    }

    async fn spire_server(&mut self, dir: &Path) -> Result<String> {
        let plugins = spire::server_plugins(&self.keyd()?.socket(), &root_certificate(dir))?;
        let config = ServerConfig::hcl(TRUST_DOMAIN, plugins)?;
        self.server = Some(SpireServer::start(&dir.join("spire"), &config).await?);
        let ca = self.keyd()?.json(&["key", "show", "spire-server/x509-CA-A"]).await?;
        ensure!(ca["algorithm"] == "ml-dsa-65" && ca["protection"] == "hsm", "{ca}");
        Ok(format!("unmodified, its CA key {} of {} in the token", text(&ca["algorithm"]), text(&ca["key"])))
    }

    async fn mint(&mut self, out: &Path) -> Result<String> {
        let server = self.server.as_ref().ok_or_else(|| anyhow::anyhow!("spire-server is not up"))?;
        let minted = server.mint(&format!("spiffe://{TRUST_DOMAIN}/web")).await?;
        let (svid, bundle) = (out.join("svid.pem"), out.join("bundle.pem"));
        fs::copy(&minted.svid, &svid)?;
        fs::copy(&minted.bundle, &bundle)?;
        let signatures = openssl::verify_chain(&svid, &bundle).await?;
        ensure!(signatures.iter().all(|s| s.starts_with("ML-DSA")), "signatures are {signatures:?}");
        let root = keyd_x509::parse_pem_chain("bundle.pem", &fs::read(&bundle)?)?.swap_remove(0);
        ensure!(root.public_key()?.algorithm() == Algorithm::MlDsa87, "the root is not ML-DSA-87");
        Ok(format!("chain signed by {}; root ML-DSA-87", signatures.join(", ")))
    }

    fn keyd(&self) -> Result<&Keyd> {
        self.keyd.as_ref().ok_or_else(|| anyhow::anyhow!("keyd is not up"))
    }

    /// Commands for whoever wants to look around.
    pub fn look_around(&self) -> String {
        let socket = self.keyd.as_ref().map(Keyd::socket).unwrap_or_default();
        let keyd = system::binary("keyd").unwrap_or_default();
        format!(
            "Everything is still up. Look around with\n  export KEYD_SOCKET={}\n  {} status\n  {} key list",
            socket.display(),
            keyd.display(),
            keyd.display()
        )
    }

    /// Stops what runs, in order; what does not stop is killed when dropped.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.stop().await;
        }
        if let Some(keyd) = self.keyd.take() {
            let _ = keyd.stop().await;
        }
    }
}

fn root_certificate(dir: &Path) -> PathBuf {
    dir.join("server/root.pem")
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}
