//! The generated messages and services, by plugin type. What each field means stands in `proto/`.

#[allow(missing_docs, clippy::all, reason = "generated; documented in the .proto files")]
mod packages {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use packages::plugin as goplugin;
pub use packages::spire::service::common::config::v1 as config;
pub use packages::spire::service::private::init::v1 as init;

pub use packages::spire::plugin::server::credentialcomposer::v1 as credentialcomposer;
pub use packages::spire::plugin::server::upstreamauthority::v1 as upstreamauthority;
pub use packages::spire::plugin::types;

/// Keys; the agent's service has the server's messages.
pub mod keymanager {
    pub use super::packages::spire::plugin::agent::keymanager::v1 as agent;
    pub use super::packages::spire::plugin::server::keymanager::v1 as server;
}

/// The two halves of node attestation.
pub mod nodeattestor {
    pub use super::packages::spire::plugin::agent::nodeattestor::v1 as agent;
    pub use super::packages::spire::plugin::server::nodeattestor::v1 as server;
}
