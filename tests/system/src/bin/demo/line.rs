//! The line, step by step.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::issuance;
use crate::measured;
use crate::mtls::{self, Front};
use crate::node::{Enrolment, Node};
use crate::report::Report;
use crate::server::Server;
use crate::trouble;

/// The trust domain of the demo.
pub const TRUST_DOMAIN: &str = "demo.example";

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
        anyhow::ensure!(selectors > 0, "the server knows no selectors of {id}: {shown}");
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
    pub fn look_around(&self) -> String {
        let binary = |name| system::binary(name).unwrap_or_default().display().to_string();
        let socket = |n: Option<&Node>| n.map(Node::keyd_socket).unwrap_or_default().display().to_string();
        let agent = self.node.as_ref().map(Node::agent_socket).unwrap_or_default();
        let server = self.server.as_ref().map(Server::keyd_socket).unwrap_or_default();
        format!(
            "Everything is still up. Look around with\n  {keyd} --socket {server} status\n  {keyd} --socket {node} key list\n  \
             KEYD_AGENT_SOCKET={agent} {keyd_agent} status\n  curl is no client for ML-DSA everywhere; this one is:\n  {again}",
            keyd = binary("keyd"),
            keyd_agent = binary("keyd-agent"),
            server = server.display(),
            node = socket(self.node.as_ref()),
            agent = agent.display(),
            again = self.front.as_ref().map(Front::command_line).unwrap_or_default(),
        )
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
