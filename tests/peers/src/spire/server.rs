//! spire-server.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use super::command::{ask, binary, run, start};
use super::free_port;
use crate::process::Process;

/// The program.
const NAME: &str = "spire-server";

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Its trust domain.
    pub trust_domain: String,
    /// The loopback port it listens on.
    pub port: u16,
    /// The language of `settings` and `plugins`, and of the file.
    pub language: Language,
    /// More of the server's section, such as `ca_ttl = "1h"`. In JSON the members, with a comma after each.
    pub settings: String,
    /// The plugins besides the DataStore: in HCL the blocks, in JSON the members of the `plugins` object.
    pub plugins: String,
}

/// The two languages that SPIRE's configuration can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// As the documentation of SPIRE writes it.
    Hcl,
    /// As Helm charts write it.
    Json,
}

/// The files of a minted X.509-SVID.
#[derive(Clone, Debug)]
pub struct Minted {
    /// Leaf first, then intermediates; PEM.
    pub svid: PathBuf,
    /// PKCS#8, PEM.
    pub key: PathBuf,
    /// The roots, PEM.
    pub bundle: PathBuf,
}

/// A running spire-server; killed when dropped.
pub struct SpireServer {
    /// The process, its log over all its starts and its plugins.
    pub process: Process,
    dir: PathBuf,
}

impl ServerConfig {
    /// A server on a free port with these HCL plugin blocks.
    ///
    /// # Errors
    /// No port is free.
    pub fn hcl(trust_domain: &str, plugins: impl Into<String>) -> Result<Self> {
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            port: free_port()?,
            language: Language::Hcl,
            settings: String::new(),
            plugins: plugins.into(),
        })
    }

    /// `spire-server validate`, which also starts the plugins; what it printed.
    ///
    /// # Errors
    /// The command's, when SPIRE or a plugin finds the configuration wrong.
    pub async fn validate(&self, dir: &Path) -> Result<String> {
        let file = self.write(dir)?;
        let mut command = Command::new(binary(NAME)?);
        command.arg("validate").arg("-config").arg(file).env("TMPDIR", dir);
        run(command).await
    }

    fn write(&self, dir: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(dir.join("data"))?;
        let file = dir.join(match self.language {
            Language::Hcl => "server.conf",
            Language::Json => "server.json",
        });
        std::fs::write(&file, self.text(dir))?;
        Ok(file)
    }

    fn text(&self, dir: &Path) -> String {
        let Self { trust_domain, port, settings, plugins, .. } = self;
        let dir = dir.display();
        match self.language {
            Language::Hcl => format!(
                r#"server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{dir}/api.sock"
  trust_domain = "{trust_domain}"
  data_dir = "{dir}/data"
  log_level = "DEBUG"
  {settings}
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3", connection_string = "{dir}/data/db.sqlite3" }} }}
{plugins}
}}
"#
            ),
            Language::Json => format!(
                r#"{{ "server": {{ {settings}
  "bind_address": "127.0.0.1", "bind_port": "{port}", "socket_path": "{dir}/api.sock",
  "trust_domain": "{trust_domain}", "data_dir": "{dir}/data", "log_level": "DEBUG" }},
"plugins": {{ {plugins},
  "DataStore": {{ "sql": {{ "plugin_data": {{
    "database_type": "sqlite3", "connection_string": "{dir}/data/db.sqlite3" }} }} }} }} }}
"#
            ),
        }
    }
}

impl SpireServer {
    /// Starts a server whose configuration, data, socket, log and temporary files are under `dir`, and waits until it is healthy. `dir`
    /// should be short: a socket's path has 107 bytes at most.
    ///
    /// # Errors
    /// With the end of its log, when the server ends or does not become healthy in time.
    pub async fn start(dir: &Path, config: &ServerConfig) -> Result<Self> {
        let file = config.write(dir)?;
        let process = start(NAME, dir, &file, &[], &dir.join("api.sock")).await?;
        Ok(Self { process, dir: dir.to_owned() })
    }

    /// `x509 mint`: an SVID for `spiffe_id`, under a new directory.
    ///
    /// # Errors
    /// The command's.
    pub async fn mint(&self, spiffe_id: &str) -> Result<Minted> {
        let dir = tempfile::Builder::new().prefix("svid-").tempdir_in(&self.dir)?.keep();
        let to = dir.to_str().context("path is not UTF-8")?;
        self.command(&["x509", "mint", "-spiffeID", spiffe_id, "-write", to]).await?;
        Ok(Minted { svid: dir.join("svid.pem"), key: dir.join("key.pem"), bundle: dir.join("bundle.pem") })
    }

    /// `entry create`; `selectors` such as `unix:uid:0`.
    ///
    /// # Errors
    /// The command's.
    pub async fn entry_create(&self, parent_id: &str, spiffe_id: &str, selectors: &[&str]) -> Result<String> {
        let mut args = vec!["entry", "create", "-parentID", parent_id, "-spiffeID", spiffe_id];
        args.extend(selectors.iter().flat_map(|s| ["-selector", s]));
        self.command(&args).await
    }

    /// `token generate`: a join token for an agent that also gets `spiffe_id`.
    ///
    /// # Errors
    /// The command's.
    pub async fn join_token(&self, spiffe_id: &str) -> Result<String> {
        let text = self.command(&["token", "generate", "-spiffeID", spiffe_id]).await?;
        let token = text.lines().find_map(|l| l.strip_prefix("Token: "));
        Ok(token.with_context(|| format!("no token in {text:?}"))?.trim().to_owned())
    }

    /// `bundle show`: the trust domain's roots, PEM.
    ///
    /// # Errors
    /// The command's.
    pub async fn bundle(&self) -> Result<String> {
        self.command(&["bundle", "show"]).await
    }

    /// Any other command that talks to the server, such as `["agent", "list"]`.
    ///
    /// # Errors
    /// The command's.
    pub async fn command(&self, args: &[&str]) -> Result<String> {
        ask(NAME, args, &self.dir.join("api.sock")).await
    }

    /// SIGTERM, and the wait for an orderly end.
    ///
    /// # Errors
    /// It does not end in time, or not with success.
    pub async fn stop(self) -> Result<()> {
        self.process.stop().await
    }
}
