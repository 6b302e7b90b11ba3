//! SPIRE CredentialComposer that certifies attested keys alone.
//!
//! SPIRE attests an agent and then certifies whatever key its CSR brings; nothing ties the two together. For agents
//! that `keyd_tpm` attested this plugin does: a certificate is issued only for a key that the quote named. It also
//! gives ML-DSA leaves the key usage that RFC 9881 §5 wants.

mod binding;
mod key_usage;
mod service;

use keyd_api::Client;
use keyd_core::Failure;
use plugin_sdk::proto::credentialcomposer::credential_composer_server::CredentialComposerServer;
use plugin_sdk::{Configured, KeydSocket, Plugin, Services};
use serde::Deserialize;

use crate::service::CredentialComposerService;

/// What the plugin serves to a server.
pub fn services() -> Services {
    let configured = Configured::<Composer>::default();
    Services::new(&configured).server(CredentialComposerServer::new(CredentialComposerService(configured)))
}

/// plugin_data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// keyd's socket; the NodeAttestor's of the same server.
    #[serde(default)]
    socket: KeydSocket,
}

/// What the service works with.
pub(crate) struct Composer {
    keyd: Client,
}

impl Plugin for Composer {
    type Config = Config;

    async fn configure(config: Config, _trust_domain: &str) -> Result<Self, Failure> {
        Ok(Self { keyd: config.socket.client() })
    }
}
