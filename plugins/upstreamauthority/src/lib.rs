//! SPIRE UpstreamAuthority with a root held by keyd.
//!
//! SPIRE's CA is an intermediate under the trust domain's root, whose certificate `keyd ca init` wrote and whose key
//! never leaves keyd. SPIRE makes a new CA at every start; the root is what agents and workloads go on trusting.

mod mint;
mod root;
mod service;

use std::path::PathBuf;

use keyd_core::{Failure, KeyId};
use keyd_x509::TrustDomain;
use plugin_sdk::proto::upstreamauthority::upstream_authority_server::UpstreamAuthorityServer;
use plugin_sdk::{Configured, KeydSocket, Plugin, Services};
use serde::Deserialize;

use crate::root::Root;
use crate::service::UpstreamAuthorityService;

/// What the plugin serves to a server.
pub fn services() -> Services {
    let configured = Configured::<Root>::default();
    Services::new(&configured).server(UpstreamAuthorityServer::new(UpstreamAuthorityService(configured)))
}

/// plugin_data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// keyd's socket.
    #[serde(default)]
    socket: KeydSocket,
    /// The root's key, as `spire-root/root`.
    root_key: KeyId,
    /// The file with the root's certificate, PEM.
    root_certificate: PathBuf,
    /// How many CAs may stand below SPIRE's, one under the other: 0 where it certifies leaves alone, 1 where a downstream
    /// CA stands below it.
    path_length: Option<u8>,
}

impl Plugin for Root {
    type Config = Config;

    async fn configure(config: Config, trust_domain: &str) -> Result<Self, Failure> {
        let trust_domain: TrustDomain = trust_domain.parse()?;
        let certificate = root::read_certificate(&config.root_certificate, &trust_domain).await?;
        tracing::info!(root_key = %config.root_key, subject = %certificate.subject(), "Configured");
        let Config { socket, root_key: key, path_length, .. } = config;
        Ok(Self { keyd: socket.client(), key, certificate, trust_domain, path_length })
    }
}
