//! A keyd of its own directory: configuration, state, socket and log.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use keyd_api::Client;
use keyd_core::Protection;
use nix::unistd::Pid;
use peers::process::Process;
use serde_json::Value;
use tokio::process::Command;

use crate::binary;

/// A running keyd; killed when dropped.
pub struct Keyd {
    /// The process and its log.
    pub process: Process,
    socket: PathBuf,
}

impl Keyd {
    /// Writes `keyd.toml` into `dir`, with socket and state directory there and `rest` after them, and starts keyd.
    ///
    /// # Errors
    /// With the end of its log, when it does not come up.
    pub async fn start(dir: &Path, rest: &str) -> Result<Self> {
        configure(dir, rest)?;
        Self::restart(dir).await
    }

    /// Starts keyd on a directory that [`Keyd::start`] prepared.
    ///
    /// # Errors
    /// With the end of its log, when it does not come up.
    pub async fn restart(dir: &Path) -> Result<Self> {
        Self::on(&dir.join("keyd.toml"), dir.join("keyd.sock"), &dir.join("keyd.log")).await
    }

    /// Starts keyd on a configuration that names `socket`.
    ///
    /// # Errors
    /// With the end of its log, when it does not come up.
    pub async fn on(config: &Path, socket: PathBuf, log: &Path) -> Result<Self> {
        Self::by(&mut serve(config)?, socket, log).await
    }

    /// Starts keyd by such a command as [`serve`] gives.
    ///
    /// # Errors
    /// With the end of its log, when it does not come up.
    pub async fn by(command: &mut Command, socket: PathBuf, log: &Path) -> Result<Self> {
        let mut process = Process::spawn(command, log)?;
        process.listens_on(&socket).await?;
        Ok(Self { process, socket })
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    /// Runs `keyd ARGS` against it.
    ///
    /// # Errors
    /// The program cannot be run.
    pub async fn output(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary("keyd")?);
        command.args(args).env("KEYD_SOCKET", &self.socket).stdin(Stdio::null()).kill_on_drop(true);
        Ok(command.output().await?)
    }

    /// Runs `keyd --json ARGS` against it.
    ///
    /// # Errors
    /// What keyd said, when it refused.
    pub async fn json(&self, args: &[&str]) -> Result<Value> {
        let output = self.output(&[&["--json"], args].concat()).await?;
        if !output.status.success() {
            bail!("keyd {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("keyd {} printed no JSON", args.join(" ")))
    }

    /// Process id of its PKCS#11 worker.
    ///
    /// # Errors
    /// It has no worker at the moment.
    pub fn worker(&self) -> Result<Pid> {
        self.process.children()?.first().copied().context("keyd has no PKCS#11 worker")
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn kill(self) -> Result<()> {
        self.process.kill().await
    }

    /// SIGTERM, and the wait for an orderly end.
    ///
    /// # Errors
    /// It does not end in time, or not with success.
    pub async fn stop(self) -> Result<()> {
        self.process.stop().await
    }
}

/// Writes `keyd.toml` into `dir`, with socket and state directory there and `rest` after them; gives its path.
///
/// # Errors
/// The file's.
pub fn configure(dir: &Path, rest: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let own = format!("socket = \"{0}/keyd.sock\"\nstate_dir = \"{0}/state\"\n", dir.display());
    let file = dir.join("keyd.toml");
    std::fs::write(&file, own + rest)?;
    Ok(file)
}

/// `keyd serve` on a configuration.
///
/// # Errors
/// keyd was not built.
pub fn serve(config: &Path) -> Result<Command> {
    let mut command = Command::new(binary("keyd")?);
    command.args(["serve", "--config"]).arg(config);
    Ok(command)
}

/// `[[namespace]]` tables with the protections that each accepts, and an `[[allow]]` table that lets this user do
/// everything.
pub fn namespaces(tables: &[(&str, &[Protection])]) -> String {
    allow(
        &[
            "create",
            "list",
            "show",
            "sign",
            "decapsulate",
            "rotate",
            "delete",
            "migrate",
            "escrow",
            "attest",
            "bind",
            "status",
            "reseal",
            "audit",
        ],
        tables,
    )
}

/// The same with these operations alone.
pub fn allow(operations: &[&str], tables: &[(&str, &[Protection])]) -> String {
    let names: Vec<_> = tables.iter().map(|(name, _)| name).collect();
    let user = nix::unistd::geteuid();
    let mut text =
        format!("[[allow]]\nusers = [{user}]\nnamespaces = {names:?}\noperations = {operations:?}\n");
    for (name, protections) in tables {
        let protections: Vec<_> = protections.iter().map(|p| p.name()).collect();
        text.push_str(&format!("[[namespace]]\nname = {name:?}\nprotections = {protections:?}\n"));
    }
    text
}

/// The `[token]` table for a token whose PIN lies in `pin_file`.
pub fn token_table(token: &peers::token::Token, pin_file: &Path) -> String {
    let environment: Vec<_> =
        token.environment.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
    format!(
        "[token]\nmodule = {:?}\nlabel = {:?}\npin_file = {pin_file:?}\nenvironment = {{ {} }}\n",
        token.module,
        token.label,
        environment.join(", ")
    )
}

/// The same, the PIN written into `dir`.
///
/// # Errors
/// The file's.
pub fn token_with_pin(token: &peers::token::Token, dir: &Path) -> Result<String> {
    let pin_file = dir.join("pin");
    write_private(&pin_file, token.user_pin)?;
    Ok(token_table(token, &pin_file))
}

/// Writes a file that only this user may read.
///
/// # Errors
/// The file's.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
