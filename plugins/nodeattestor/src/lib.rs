//! SPIRE NodeAttestor `keyd_tpm`, the server's and the agent's half.
//!
//! The node's TPM proves itself as `keyd-attest` describes. What the two halves need of a TPM and of each other goes
//! through keyd: the agent's activates and quotes there, the server's leaves there which keys the attestation vouched
//! for, where the CredentialComposer finds it before a certificate is issued.
//!
//! SPIRE wants agent ids under the attestor's name, so the plugin must be called `keyd_tpm` on both sides.

mod agent;
mod conversation;
mod policy;
mod server;
mod service;

use std::path::PathBuf;

use keyd_attest::PcrSet;
use keyd_core::{Failure, Namespace, Reason};
use plugin_sdk::proto::nodeattestor::agent::node_attestor_server::NodeAttestorServer as AgentServer;
use plugin_sdk::proto::nodeattestor::server::node_attestor_server::NodeAttestorServer;
use plugin_sdk::{Configured, KeydSocket, Plugin, Services};
use serde::Deserialize;

use crate::agent::Agent;
use crate::policy::PolicyFiles;
use crate::server::Server;
use crate::service::NodeAttestorService;

/// What the plugin serves, to a server or an agent.
pub fn services() -> Services {
    let configured = Configured::<Half>::default();
    let service = NodeAttestorService(configured.clone());
    Services::new(&configured)
        .server(NodeAttestorServer::new(service.clone()))
        .agent(AgentServer::new(service))
}

/// plugin_data. `namespace` belongs to an agent's, everything but `socket` and `namespace` to a server's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// keyd's socket.
    #[serde(default)]
    socket: KeydSocket,
    /// The namespace of the agent's KeyManager.
    namespace: Option<Namespace>,
    /// PEM file with the authorities that an EK certificate may chain to.
    ek_roots: Option<PathBuf>,
    /// File of manifests, or directory with a `.json` file each, of the TPMs that are let in.
    enrolled: Option<PathBuf>,
    /// The PCRs that a node quotes, beside those that its manifest has values for; without it PCR 7, the state of
    /// Secure Boot.
    pcrs: Option<Vec<u8>>,
}

/// The half that plugin_data describes.
pub(crate) enum Half {
    Agent(Agent),
    Server(Server),
}

impl Plugin for Half {
    type Config = Config;

    async fn configure(config: Config, trust_domain: &str) -> Result<Self, Failure> {
        let Config { socket, namespace, ek_roots, enrolled, pcrs } = config;
        let of_a_server = ek_roots.is_some() || enrolled.is_some() || pcrs.is_some();
        match namespace {
            Some(_) if of_a_server => Err(Failure::new(
                Reason::BadConfig,
                "plugin_data: namespace is for an agent, ek_roots, enrolled and pcrs are for a server; give one kind",
            )),
            Some(namespace) => {
                tracing::info!(%namespace, "Configured for an agent");
                Ok(Self::Agent(Agent { keyd: socket.client(), namespace }))
            }
            None => {
                let pcrs = PcrSet::new(pcrs.unwrap_or_else(|| vec![7]))?;
                let files = PolicyFiles { ek_roots, enrolled, pcrs };
                // What cannot be read now would refuse every node later; SPIRE says so at once.
                files.verifier().await?;
                tracing::info!(ek_roots = ?files.ek_roots, enrolled = ?files.enrolled, %pcrs, "Configured for a server");
                Ok(Self::Server(Server {
                    keyd: socket.client(),
                    trust_domain: trust_domain.to_owned(),
                    files,
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn configure(config: serde_json::Value) -> Result<Half, Failure> {
        Half::configure(serde_json::from_value(config).unwrap(), "example.org").await
    }

    async fn refusal(config: serde_json::Value) -> String {
        match configure(config).await {
            Ok(_) => panic!("configured"),
            Err(failure) => failure.message,
        }
    }

    #[tokio::test]
    async fn plugin_data_is_an_agents_or_a_servers() {
        let agent = configure(serde_json::json!({ "namespace": "spire-agent" })).await;
        assert!(matches!(agent, Ok(Half::Agent(_))));
        let both = refusal(serde_json::json!({ "namespace": "spire-agent", "pcrs": [7] })).await;
        assert!(both.contains("give one kind"), "{both}");
    }

    #[tokio::test]
    async fn a_server_that_would_accept_everyone_does_not_start() {
        for config in [serde_json::json!({}), serde_json::json!({ "pcrs": [0, 7] })] {
            let message = refusal(config).await;
            assert!(message.contains("neither ek_roots nor enrolled is given"), "{message}");
        }
    }

    #[tokio::test]
    async fn a_server_whose_files_are_not_there_does_not_start() {
        for key in ["ek_roots", "enrolled"] {
            let message = refusal(serde_json::json!({ key: "/nonexistent/list" })).await;
            assert_eq!(message, format!("{key} /nonexistent/list: No such file or directory (os error 2)"));
        }
    }

    #[tokio::test]
    async fn pcrs_that_do_not_exist_are_refused() {
        let message = refusal(serde_json::json!({ "enrolled": "/", "pcrs": [24] })).await;
        assert!(message.contains("PCR 24 does not exist"), "{message}");
    }
}
