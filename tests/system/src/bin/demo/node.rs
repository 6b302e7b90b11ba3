//! A field node: a TPM, provisioned as at imaging, with keyd and keyd-agent on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keyd_x509::Certificate;
use peers::process::Process;
use peers::swtpm::Swtpm;
use serde_json::Value;
use system::binary;
use system::keyd::Keyd;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::line::TRUST_DOMAIN;
use crate::server::Server;

/// How long attestation, an entry or a refusal may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Which TPMs the server takes: those of one maker that are also in a directory of manifests.
pub struct Enrolment {
    /// The directory.
    pub manifests: PathBuf,
    /// The makers' roots, PEM.
    pub ek_roots: PathBuf,
    /// The maker itself.
    maker: PathBuf,
}

impl Enrolment {
    /// An empty list, and a maker yet to make its first TPM.
    pub fn new(dir: &Path) -> Result<Self> {
        let this = Self {
            manifests: dir.join("enrolled"),
            ek_roots: dir.join("ek-roots.pem"),
            maker: dir.join("tpm-maker"),
        };
        fs::create_dir_all(&this.manifests)?;
        fs::create_dir_all(&this.maker)?;
        // The first TPM brings the roots; the server wants to read the file before.
        let first = Swtpm::start_with_ca(&dir.join("tpm-of-the-maker"), &this.maker)?;
        let roots = first.ek_roots().iter().map(fs::read_to_string).collect::<Result<Vec<_>, _>>()?;
        fs::write(&this.ek_roots, roots.concat())?;
        Ok(this)
    }

    /// Puts a node's manifest into the list.
    pub fn enrol(&self, node: &Node) -> Result<()> {
        let manifest = node.manifest();
        let name = manifest.file_name().context("a manifest has a name")?;
        fs::copy(&manifest, self.manifests.join(name))?;
        Ok(())
    }
}

/// A node.
pub struct Node {
    dir: PathBuf,
    name: &'static str,
    keyd: Option<Keyd>,
    agent: Option<Process>,
    tpm: Option<Swtpm>,
}

/// X.509-SVIDs in files: `svid.N.pem`, `svid.N.key` and `bundle.N.pem`.
pub struct Svids {
    /// Where they are.
    pub dir: PathBuf,
    /// SPIFFE ID of each N.
    pub ids: Vec<String>,
}

impl Svids {
    /// The N of a workload.
    pub fn number(&self, name: &str) -> Result<usize> {
        let id = format!("spiffe://{TRUST_DOMAIN}/{name}");
        self.ids.iter().position(|i| *i == id).with_context(|| format!("{id} is not among {:?}", self.ids))
    }
}

impl Node {
    /// Starts a TPM and runs the provisioning script on it.
    pub async fn provision(
        dir: &Path,
        name: &'static str,
        enrolment: &Enrolment,
        server: &Server,
    ) -> Result<(Self, String)> {
        for part in ["etc", "state", "run"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let tpm = Swtpm::start_with_ca(&dir.join("tpm"), &enrolment.maker)?;
        let user =
            nix::unistd::User::from_uid(nix::unistd::geteuid())?.context("this user has no name")?.name;
        let mut script = Command::new(peers::root().join("provisioning/keyd-provision"));
        script.args(["apply", "--json", "--node", name, "--pcrs", "0,7"]);
        script.args(["--tcti", &tpm.tcti(), "--trust-domain", TRUST_DOMAIN, "--server", &server.address()]);
        script.arg("--trust-bundle").arg(server.root_certificate());
        for part in ["etc", "state", "run"] {
            script.arg(format!("--{part}")).arg(dir.join(part));
        }
        for role in ["service", "agent", "admin"] {
            script.arg(format!("--{role}-user")).arg(&user);
        }
        let bin = binary("keyd")?;
        let path = std::env::join_paths(
            bin.parent()
                .map(Path::to_owned)
                .into_iter()
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        )?;
        let output = script.env("PATH", path).stdin(Stdio::null()).kill_on_drop(true).output().await?;
        ensure!(
            output.status.success(),
            "keyd-provision: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let node = Self { dir: dir.to_owned(), name, keyd: None, agent: None, tpm: Some(tpm) };
        let manifest: Value = serde_json::from_slice(&fs::read(node.manifest())?)?;
        let ek = manifest["ek_sha256"].as_str().context("the manifest names no EK")?;
        Ok((
            node,
            format!(
                "{name}: EK {}…, manifest {}",
                ek.get(..16).unwrap_or(ek),
                format_args!("enrolled/{name}.json")
            ),
        ))
    }

    /// Starts keyd as provisioned.
    pub async fn start_keyd(&mut self) -> Result<()> {
        let config = self.dir.join("etc/keyd.toml");
        self.keyd = Some(Keyd::on(&config, self.keyd_socket(), &self.dir.join("keyd.log")).await?);
        Ok(())
    }

    /// Starts keyd-agent as provisioned, and waits until it is attested.
    pub async fn start_agent(&mut self) -> Result<()> {
        let mut agent = self.spawn_agent()?;
        agent.listens_on(&self.agent_socket()).await?;
        self.agent = Some(agent);
        let deadline = Instant::now() + PATIENCE;
        while self.agent_id().await.is_err() {
            if Instant::now() > deadline {
                bail!("keyd-agent is not attested:\n{}", self.agent_log()?);
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Starts keyd-agent and waits for the server's refusal; gives the server's words.
    pub async fn refused_in_words(&mut self) -> Result<String> {
        self.agent = Some(self.spawn_agent()?);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.agent_log()?;
            if let Some(line) = log.lines().find(|l| l.contains("not enrolled")) {
                let words = line.split_once("failure=").map_or(line, |(_, words)| words).trim();
                return Ok(format!("{}: {words}", self.name));
            }
            if Instant::now() > deadline {
                bail!("the server refuses {} in no words:\n{log}", self.name);
            }
            sleep(PAUSE).await;
        }
    }

    /// The SPIFFE ID that the server gave the agent.
    pub async fn agent_id(&self) -> Result<String> {
        let mut command = self.agent_command()?;
        let output = command.args(["--json", "status"]).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let status: Value = serde_json::from_slice(&output.stdout)?;
        Ok(status["agent"]["spiffe_id"].as_str().context("the agent has no identity yet")?.to_owned())
    }

    /// This user's SVIDs, once the agent has as many as there are entries.
    pub async fn fetch_svids(&self, count: usize) -> Result<Svids> {
        let dir = self.dir.join("svids");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut command = self.agent_command()?;
            let output = command.args(["fetch", "x509", "--write"]).arg(&dir).output().await?;
            let last = dir.join(format!("svid.{}.pem", count - 1));
            if output.status.success() && last.exists() {
                break;
            }
            if Instant::now() > deadline {
                bail!("no SVIDs:\n{}\n{}", String::from_utf8_lossy(&output.stderr), self.agent_log()?);
            }
            sleep(PAUSE).await;
        }
        let leaf = |n: usize| -> Result<Certificate> {
            let file = dir.join(format!("svid.{n}.pem"));
            Ok(keyd_x509::parse_pem_chain(&file.display().to_string(), &fs::read(&file)?)?.swap_remove(0))
        };
        let ids = (0..count).map(|n| Ok(leaf(n)?.leaf_spiffe_id()?.to_string())).collect::<Result<_>>()?;
        Ok(Svids { dir, ids })
    }

    /// Kills keyd as a crash would, and starts it again.
    pub async fn crash_keyd(&mut self) -> Result<()> {
        self.keyd.take().context("keyd is not up")?.kill().await?;
        self.start_keyd().await
    }

    /// Stops everything.
    pub async fn stop(&mut self) {
        if let Some(agent) = self.agent.take() {
            let _ = agent.stop().await;
        }
        if let Some(keyd) = self.keyd.take() {
            let _ = keyd.stop().await;
        }
        self.tpm = None;
    }

    /// The running keyd.
    pub fn keyd(&self) -> Result<&Keyd> {
        self.keyd.as_ref().context("the node's keyd is not up")
    }

    /// keyd's socket.
    pub fn keyd_socket(&self) -> PathBuf {
        self.dir.join("run/keyd/keyd.sock")
    }

    /// The agent's socket.
    pub fn agent_socket(&self) -> PathBuf {
        self.dir.join("run/keyd-agent/agent.sock")
    }

    fn manifest(&self) -> PathBuf {
        self.dir.join(format!("etc/{}.json", self.name))
    }

    fn spawn_agent(&self) -> Result<Process> {
        let mut serve = Command::new(binary("keyd-agent")?);
        serve.args(["serve", "--config"]).arg(self.dir.join("etc/agent.toml"));
        Process::spawn(&mut serve, &self.dir.join("agent.log"))
    }

    fn agent_command(&self) -> Result<Command> {
        let mut command = Command::new(binary("keyd-agent")?);
        command.env("KEYD_AGENT_SOCKET", self.agent_socket()).stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    fn agent_log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.join("agent.log"))?)
    }
}
