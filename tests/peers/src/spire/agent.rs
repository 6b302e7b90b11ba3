//! spire-agent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use super::command::{ask, start};
use super::server::Minted;
use crate::process::Process;

/// The program.
const NAME: &str = "spire-agent";

/// How long an entry may take to reach the agent.
const FETCH: Duration = Duration::from_secs(30);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Its trust domain.
    pub trust_domain: String,
    /// The loopback port of the server.
    pub server_port: u16,
    /// The trust domain's roots, PEM, as `SpireServer::bundle` gives them.
    pub bundle: String,
    /// A join token, for the built-in `join_token` attestor.
    pub join_token: Option<String>,
    /// More of the agent's section, HCL.
    pub settings: String,
    /// Every plugin, as HCL blocks: a NodeAttestor, a KeyManager, WorkloadAttestors.
    pub plugins: String,
}

/// A running spire-agent; killed when dropped.
pub struct SpireAgent {
    /// The process, its log over all its starts and its plugins.
    pub process: Process,
    dir: PathBuf,
}

impl AgentConfig {
    fn text(&self, dir: &Path) -> String {
        let Self { trust_domain, server_port, settings, plugins, .. } = self;
        let dir = dir.display();
        format!(
            r#"agent {{
  data_dir = "{dir}/data"
  log_level = "DEBUG"
  server_address = "127.0.0.1"
  server_port = "{server_port}"
  socket_path = "{dir}/agent.sock"
  trust_bundle_path = "{dir}/bundle.pem"
  trust_domain = "{trust_domain}"
  {settings}
}}
plugins {{
{plugins}
}}
"#
        )
    }
}

impl SpireAgent {
    /// Starts an agent whose configuration, data, socket, log and temporary files are under `dir`, and waits until it is attested and
    /// healthy. `dir` should be short: a socket's path has 107 bytes at most.
    ///
    /// # Errors
    /// With the end of its log, when the agent ends or does not become healthy in time.
    pub async fn start(dir: &Path, config: &AgentConfig) -> Result<Self> {
        std::fs::create_dir_all(dir.join("data"))?;
        std::fs::write(dir.join("bundle.pem"), &config.bundle)?;
        let file = dir.join("agent.conf");
        std::fs::write(&file, config.text(dir))?;
        let token: Vec<&str> = config.join_token.iter().flat_map(|t| ["-joinToken", t]).collect();
        let process = start(NAME, dir, &file, &token, &dir.join("agent.sock")).await?;
        Ok(Self { process, dir: dir.to_owned() })
    }

    /// `api fetch x509`: the caller's own first SVID, under a new directory. A new entry takes some seconds from the
    /// server to the agent; this waits for it.
    ///
    /// # Errors
    /// The command's, when there is still no SVID for the caller.
    pub async fn fetch(&self) -> Result<Minted> {
        let dir = tempfile::Builder::new().prefix("svid-").tempdir_in(&self.dir)?.keep();
        let to = dir.to_str().context("path is not UTF-8")?;
        let deadline = Instant::now() + FETCH;
        let (socket, fetch) = (self.dir.join("agent.sock"), ["api", "fetch", "x509", "-write", to]);
        while let Err(error) = ask(NAME, &fetch, &socket).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
        Ok(Minted {
            svid: dir.join("svid.0.pem"),
            key: dir.join("svid.0.key"),
            bundle: dir.join("bundle.0.pem"),
        })
    }

    /// SIGTERM, and the wait for an orderly end.
    ///
    /// # Errors
    /// It does not end in time, or not with success.
    pub async fn stop(self) -> Result<()> {
        self.process.stop().await
    }
}
