//! The line, step by step.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::issuance;
use crate::measured;
use crate::mtls::{self, Front};
use crate::node::{Enrolment, Node};
use crate::report::Report;
use crate::server::Server;
use crate::trouble;

/// The trust domain of the demo.
pub const TRUST_DOMAIN: &str = "demo.example";

/// Longest path of a Unix socket, in bytes (unix(7)).
const SOCKET_LIMIT: usize = 107;
/// The longest below the demo's directory: that of a plugin.
const LONGEST_SOCKET: &str = "server/spire/tmp/keyd-plugin-XXXXXX/s";

/// What runs at the moment.
#[derive(Default)]
pub struct Line {
    server: Option<Server>,
    node: Option<Node>,
    stranger: Option<Node>,
    front: Option<Front>,
    dir: PathBuf,
}

impl Line {
    /// Plays every step; stops at the first that does not hold.
    pub async fn play(&mut self, report: &mut Report) -> Result<()> {
        let out = report.out().to_owned();
        self.dir = out.join("run");
        fs::create_dir_all(&self.dir)?;
        let longest = self.dir.join(LONGEST_SOCKET);
        ensure!(
            longest.as_os_str().len() <= SOCKET_LIMIT,
            "{} is too deep in the file system for Unix sockets: {} would have more than {SOCKET_LIMIT} bytes. Check the \
             project out nearer to the root",
            self.dir.display(),
            longest.display()
        );
        let enrolment = Enrolment::new(&self.dir)?;

        report.step("the server's keyd is up on a token", self.server_keyd()).await?;
        report.step("the root key is in the token", async { self.server()?.make_root().await }).await?;
        report.step("spire-server is up on keyd", self.spire_server(&enrolment)).await?;
        report.step("a node's TPM is provisioned and enrolled", self.provision(&enrolment)).await?;
        report.step("the node is attested", self.attest()).await?;
        report.step("a TPM that is not enrolled is refused", self.refuse_stranger(&enrolment)).await?;
        report.step("a workload has an ML-DSA SVID", self.workload_svid(&out)).await?;
        report
            .step("the CA key signs nothing beyond its profile", async {
                issuance::refuse(self.server()?).await
            })
            .await?;
        report.step("a foreign client is served over mutual TLS", self.serve(&out)).await?;
        report.step("another SPIFFE ID is refused", async { mtls::refuse(self.front()?).await }).await?;
        report
            .step("a local user without rights is refused", async { trouble::no_rights(self.node()?).await })
            .await?;
        report
            .step("the token's worker is killed under load, every SVID is minted", async {
                trouble::kill_worker_under_load(self.server()?).await
            })
            .await?;
        report.step("the SPIRE server is gone, mutual TLS goes on", self.server_gone()).await?;
        report.step("keyd is killed and back with every key", self.kill_keyd()).await?;
        report.step("the SPIRE server is back", self.server_back(&enrolment)).await?;
        report.step("a PCR moves and keyd names it", measured::moved_pcr(&self.dir.join("measured"))).await?;
        report
            .step("keyd says how it is", async { trouble::status(self.server()?, self.node()?).await })
            .await
    }

    async fn server_keyd(&mut self) -> Result<String> {
        let (server, proof) = Server::start(&self.dir.join("server")).await?;
        self.server = Some(server);
        Ok(proof)
    }

    async fn spire_server(&mut self, enrolment: &Enrolment) -> Result<String> {
        self.server.as_mut().context("the server's keyd is not up")?.start_spire(enrolment).await
    }

    async fn provision(&mut self, enrolment: &Enrolment) -> Result<String> {
        let (mut node, proof) =
            Node::provision(&self.dir.join("node"), "edge-1", enrolment, self.server()?).await?;
        enrolment.enrol(&node)?;
        node.start_keyd().await?;
        self.node = Some(node);
        Ok(proof)
    }

    async fn attest(&mut self) -> Result<String> {
        let node = self.node.as_mut().context("the node is not provisioned")?;
        node.start_agent().await?;
        let id = node.agent_id().await?;
        let shown = self.server()?.spire()?.command(&["agent", "show", "-spiffeID", &id]).await?;
        let selectors = shown.lines().filter(|l| l.contains("keyd_tpm:")).count();
        ensure!(selectors > 0, "the server knows no selectors of {id}: {shown}");
        Ok(format!("{id}; the server gave it {selectors} selectors from its quote"))
    }

    async fn refuse_stranger(&mut self, enrolment: &Enrolment) -> Result<String> {
        let (mut stranger, _) =
            Node::provision(&self.dir.join("stranger"), "edge-2", enrolment, self.server()?).await?;
        stranger.start_keyd().await?;
        let words = stranger.refused_in_words().await?;
        stranger.stop().await;
        self.stranger = Some(stranger);
        Ok(words)
    }

    async fn workload_svid(&mut self, out: &Path) -> Result<String> {
        let node = self.node()?;
        self.server()?.entries(&node.agent_id().await?).await?;
        let svids = node.fetch_svids(3).await?;
        mtls::keep_svid(&svids, out).await
    }

    async fn serve(&mut self, out: &Path) -> Result<String> {
        let front = Front::start(&self.dir.join("front"), self.node()?).await?;
        let front = self.front.insert(front);
        front.handshake(out).await
    }

    async fn server_gone(&mut self) -> Result<String> {
        self.server.as_mut().context("the server is not up")?.stop_spire().await?;
        self.front()?.served_again().await?;
        Ok("spire-server stopped; OpenSSL is served all the same".to_owned())
    }

    async fn kill_keyd(&mut self) -> Result<String> {
        let server = self.server.as_mut().context("the server's keyd is not up")?;
        let node = self.node.as_mut().context("the node is not up")?;
        let words = trouble::kill_and_come_back(server, node).await?;
        self.front()?.served_again().await?;
        Ok(format!("{words}; mutual TLS by the same key again"))
    }

    async fn server_back(&mut self, enrolment: &Enrolment) -> Result<String> {
        let server = self.server.as_mut().context("the server is not up")?;
        server.start_spire(enrolment).await?;
        let agents = server.spire()?.command(&["agent", "list"]).await?;
        let id = self.node()?.agent_id().await?;
        ensure!(agents.contains(&id), "{agents}");
        Ok(format!("its CA key is in the token, its root is the same, and it knows {id}"))
    }

    fn server(&self) -> Result<&Server> {
        self.server.as_ref().context("the server's keyd is not up")
    }

    fn node(&self) -> Result<&Node> {
        self.node.as_ref().context("the node is not up")
    }

    fn front(&self) -> Result<&Front> {
        self.front.as_ref().context("keyd-proxy is not up")
    }

    /// Commands for whoever wants to look around.
    ///
    /// # Errors
    /// Something is not up.
    pub fn look_around(&self) -> Result<String> {
        let (server, node) = (self.server()?, self.node()?);
        let spire = peers::dir().join("spire/spire-server");
        let (keyd, agent) = (system::binary("keyd")?, system::binary("keyd-agent")?);
        let (spire, keyd, agent) = (spire.display(), keyd.display(), agent.display());
        let api = server.spire_dir().join("api.sock");
        let (api, of_server) = (api.display(), server.keyd_socket());
        let (of_server, of_node, of_agent) = (of_server.display(), node.keyd_socket(), node.agent_socket());
        let (of_node, of_agent) = (of_node.display(), of_agent.display());
        Ok(format!(
            "Everything is still up, and logs beside its sockets. Look around with\n\
             \x20 {keyd} --socket {of_server} status\n\
             \x20 {keyd} --socket {of_server} audit certificates\n\
             \x20 {keyd} --socket {of_node} key list\n\
             \x20 {keyd} --socket {of_node} doctor\n\
             \x20 {agent} status --socket {of_agent}\n\
             \x20 {agent} fetch x509 --socket {of_agent}\n\
             \x20 {spire} agent list -socketPath {api}\n\
             \x20 {spire} entry show -socketPath {api}\n\
             Through keyd-proxy, as a client with an SVID:\n  {}",
            self.front()?.command_line(),
        ))
    }

    /// Stops what runs, in order; what does not stop is killed when dropped.
    pub async fn stop(&mut self) {
        if let Some(front) = self.front.take() {
            front.stop().await;
        }
        for node in [self.node.as_mut(), self.stranger.as_mut()].into_iter().flatten() {
            node.stop().await;
        }
        if let Some(server) = self.server.as_mut() {
            server.stop().await;
        }
    }
}
