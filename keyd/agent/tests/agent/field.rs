//! A trust domain on real parts: keyd with a token and a TPM, spire-server on keyd's plugins, and the agent.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keyd_api::agent::AgentClient;
use keyd_core::Protection;
use peers::process::Process;
use peers::spire::{ServerConfig, SpireServer};
use peers::swtpm::Swtpm;
use peers::token::Token;
use serde_json::Value;
use system::keyd::{Keyd, allow, token_with_pin};
use system::spire::{attestation_plugins, server_plugins};
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

pub const DOMAIN: &str = "field.test";
pub const AGENT: &str = env!("CARGO_BIN_EXE_keyd-agent");

/// How long what must come may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// A node: keyd with a token and a TPM, and the agent on it.
pub struct Node {
    pub keyd: Keyd,
    pub dir: TempDir,
    tpm: Swtpm,
}

impl Node {
    pub async fn start() -> Result<Self> {
        system::build(&["keyd-daemon", "keyd-spire-plugin"]).await?;
        let dir = tempfile::Builder::new().prefix("field-").tempdir_in("/tmp")?;
        let tpm = tokio::task::block_in_place(|| Swtpm::start(&dir.path().join("tpm")))?;
        let keyd = start_keyd(&dir.path().join("keyd"), &tpm).await?;
        Ok(Self { keyd, dir, tpm })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts an agent of the server on this port, in the directory `name`; it need not come to an SVID.
    pub async fn agent(&self, name: &str, port: u16, bundle: &Path) -> Result<Agent> {
        let dir = self.path(name);
        std::fs::create_dir_all(&dir)?;
        let text = format!(
            r#"
trust_domain = "{DOMAIN}"
server_address = "127.0.0.1:{port}"
trust_bundle = "{}"
socket = "{2}/agent.sock"
keyd_socket = "{1}"
state_dir = "{2}/state"
"#,
            bundle.display(),
            self.keyd.socket().display(),
            dir.display(),
        );
        std::fs::write(dir.join("agent.toml"), text)?;
        Agent::start(&dir).await
    }
}

/// A node and the spire-server that it is enrolled with.
pub struct Field {
    pub node: Node,
    pub server: Option<SpireServer>,
    config: ServerConfig,
    /// The agent's SPIFFE ID.
    pub agent_id: String,
}

impl Field {
    pub async fn start() -> Result<Self> {
        Self::with_settings("").await
    }

    /// `settings` are more of the SPIRE server's section.
    pub async fn with_settings(settings: &str) -> Result<Self> {
        let node = Node::start().await?;
        let (keyd, root) = (&node.keyd, node.path("root.pem"));
        keyd.json(&["ca", "init", "--trust-domain", DOMAIN, "--out", &root.display().to_string()]).await?;
        let enrolled = node.path("enrolled");
        std::fs::create_dir(&enrolled)?;
        let manifest = keyd.json(&["node", "show", "--node", "field", "--pcrs", "7"]).await?;
        std::fs::write(enrolled.join("field.json"), manifest.to_string())?;
        let ek = manifest["ek_sha256"].as_str().context("no EK hash")?;
        let agent_id = format!("spiffe://{DOMAIN}/spire/agent/keyd_tpm/{ek}");

        let mut config = ServerConfig::hcl(DOMAIN, plugins(&node, &root, &enrolled)?)?;
        config.settings = settings.to_owned();
        let server = SpireServer::start(&node.path("spire"), &config).await?;
        std::fs::write(node.path("bundle.pem"), server.bundle().await?)?;
        Ok(Self { node, server: Some(server), config, agent_id })
    }

    pub fn server(&self) -> &SpireServer {
        self.server.as_ref().expect("the server runs")
    }

    pub async fn stop_server(&mut self) -> Result<()> {
        self.server.take().context("the server runs")?.stop().await
    }

    pub async fn start_server(&mut self) -> Result<()> {
        self.server = Some(SpireServer::start(&self.node.path("spire"), &self.config).await?);
        Ok(())
    }

    /// Makes an entry for workloads of the agent, with selectors such as `unix:uid:0`; `more` are further flags. Gives
    /// its id.
    pub async fn entry(&self, path: &str, selectors: &[&str], more: &[&str]) -> Result<String> {
        let id = format!("spiffe://{DOMAIN}{path}");
        let mut args =
            vec!["entry", "create", "-output", "json", "-parentID", &self.agent_id, "-spiffeID", &id];
        args.extend(selectors.iter().flat_map(|s| ["-selector", s]));
        args.extend(more);
        let answer: Value = serde_json::from_str(&self.server().command(&args).await?)?;
        Ok(answer["results"][0]["entry"]["id"].as_str().context("no entry id")?.to_owned())
    }

    /// Starts the agent.
    pub async fn agent(&self) -> Result<Agent> {
        self.node.agent("agent", self.config.port, &self.node.path("bundle.pem")).await
    }
}

/// A running agent; killed when dropped.
pub struct Agent {
    pub process: Process,
    pub dir: PathBuf,
    /// What systemd would hear.
    manager: UnixDatagram,
}

impl Agent {
    /// Starts it in the directory of one that ran before.
    pub async fn start(dir: &Path) -> Result<Self> {
        let notify = dir.join("notify.sock");
        let _ = std::fs::remove_file(&notify);
        let manager = UnixDatagram::bind(&notify)?;
        let mut serve = Command::new(AGENT);
        serve.args(["serve", "--config"]).arg(dir.join("agent.toml")).env("NOTIFY_SOCKET", &notify);
        let mut process = Process::spawn(&mut serve, &dir.join("agent.log"))?;
        process.listens_on(&dir.join("agent.sock")).await?;
        Ok(Self { process, dir: dir.to_owned(), manager })
    }

    /// What systemd has heard meanwhile.
    pub fn told_manager(&self) -> Vec<String> {
        let mut buffer = [0; 256];
        let mut told = Vec::new();
        while let Ok(length) = self.manager.try_recv(&mut buffer) {
            told.push(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned());
        }
        told
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("agent.sock")
    }

    pub fn client(&self) -> AgentClient {
        AgentClient::new(self.socket())
    }

    /// `keyd-agent ARGS` against it.
    pub async fn output(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(AGENT);
        command.args(args).env("KEYD_AGENT_SOCKET", self.socket()).stdin(Stdio::null()).kill_on_drop(true);
        Ok(command.output().await?)
    }

    /// `keyd-agent status --json`.
    pub async fn status(&self) -> Result<Value> {
        let output = self.output(&["status", "--json"]).await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Waits until the status is as `wanted`.
    pub async fn until(&self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await?;
            if wanted(&status) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{status:#}\n{}", self.process.log()?);
            }
            sleep(PAUSE).await;
        }
    }

    /// Waits until the log has these words.
    pub async fn says(&self, words: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.process.log()?.contains(words) {
            ensure!(Instant::now() < deadline, "{words:?} is not in\n{}", self.process.log()?);
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// `keyd-agent fetch x509` into a new directory.
    pub async fn try_fetch(&self) -> Result<Fetched> {
        let dir = tempfile::Builder::new().prefix("fetch-").tempdir_in(&self.dir)?.keep();
        let output = self.output(&["fetch", "x509", "--write", &dir.display().to_string()]).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Fetched { dir, code: output.status.code(), said })
    }

    /// The same, once there is something to fetch.
    pub async fn fetch(&self) -> Result<PathBuf> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let fetched = self.try_fetch().await?;
            if fetched.code == Some(0) {
                return Ok(fetched.dir);
            }
            ensure!(Instant::now() < deadline, "{}\n{}", fetched.said, self.process.log()?);
            sleep(PAUSE).await;
        }
    }
}

/// How a fetch ended.
pub struct Fetched {
    pub dir: PathBuf,
    pub code: Option<i32>,
    pub said: String,
}

async fn start_keyd(dir: &Path, tpm: &Swtpm) -> Result<Keyd> {
    std::fs::create_dir_all(dir)?;
    let token = Token::kryoptic(dir)?;
    let tables =
        ["spire-root", "spire-server", "keyd-agent", "workload"].map(|n| (n, &[Protection::Hsm][..]));
    let operations = ["create", "list", "show", "sign", "rotate", "delete", "attest", "bind", "status"];
    let rest = token_with_pin(&token, dir)?
        + &format!("[tpm]\ntcti = \"{}\"\n", tpm.tcti())
        + &allow(&operations, &tables);
    Keyd::start(dir, &rest).await
}

fn plugins(node: &Node, root: &Path, enrolled: &Path) -> Result<String> {
    let ek_roots = node.path("ek-roots.pem");
    let pems = node.tpm.ek_roots().into_iter().map(std::fs::read_to_string).collect::<Result<String, _>>()?;
    std::fs::write(&ek_roots, pems)?;
    let socket = node.keyd.socket();
    Ok(attestation_plugins(&socket, enrolled, &ek_roots)? + &server_plugins(&socket, root)?)
}
