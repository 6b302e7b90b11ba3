//! SPIRE KeyManager on keyd, for server and agent.
//!
//! SPIRE's keys are the keys of one namespace of keyd, under SPIRE's own names: `x509-CA-A` of namespace
//! `spire-server` is `spire-server/x509-CA-A`.

mod algorithm;
mod keys;
mod service;

use keyd_core::{Algorithm, Failure, Namespace, Reason};
use plugin_sdk::proto::keymanager::agent::key_manager_server::KeyManagerServer as AgentServer;
use plugin_sdk::proto::keymanager::server::key_manager_server::KeyManagerServer;
use plugin_sdk::{Configured, KeydSocket, Plugin, Services};
use serde::Deserialize;

use crate::keys::Keys;
use crate::service::KeyManagerService;

/// What the plugin serves, to a server or an agent.
pub fn services() -> Services {
    let configured = Configured::<Keys>::default();
    let service = KeyManagerService(configured.clone());
    Services::new(&configured).server(KeyManagerServer::new(service.clone())).agent(AgentServer::new(service))
}

/// plugin_data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// keyd's socket.
    #[serde(default)]
    socket: KeydSocket,
    /// The namespace that holds this SPIRE's keys and nothing else.
    namespace: Namespace,
    /// The algorithm of the server's X.509 CA keys, whatever type SPIRE asks for. SPIRE cannot ask for ML-DSA.
    x509_ca_algorithm: Option<Algorithm>,
}

impl Plugin for Keys {
    type Config = Config;

    async fn configure(config: Config, _trust_domain: &str) -> Result<Self, Failure> {
        if let Some(algorithm) = config.x509_ca_algorithm.filter(|algorithm| !algorithm.signs_messages()) {
            return Err(Failure::new(
                Reason::BadConfig,
                format!(
                    "x509_ca_algorithm: {algorithm} keys sign no certificates here; use ml-dsa-65, another ML-DSA, ec-p256 or ec-p384"
                ),
            ));
        }
        let x509_ca_algorithm = config.x509_ca_algorithm.map_or("as SPIRE asks", Algorithm::name);
        tracing::info!(namespace = %config.namespace, x509_ca_algorithm, "Configured");
        Ok(Self::new(config.socket.client(), config.namespace, config.x509_ca_algorithm))
    }
}
