//! The generated messages, clients and servers. What each field means stands in `proto/`.

use zeroize::Zeroize;

#[allow(missing_docs, clippy::all, reason = "generated; documented in the .proto files")]
mod packages {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use packages::keyd::agent::admin::v1 as admin;
pub use packages::spire::api::server::agent::v1 as agent;
pub use packages::spire::api::server::bundle::v1 as bundle;
pub use packages::spire::api::server::entry::v1 as entry;
pub use packages::spire::api::server::svid::v1 as svid;
pub use packages::spire::api::types;

/// The SPIFFE Workload API.
pub mod workload {
    pub use super::packages::{
        JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
        ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest,
        X509svidResponse, spiffe_workload_api_client, spiffe_workload_api_server,
    };
}

impl Drop for workload::X509svid {
    /// Wipes the private key.
    fn drop(&mut self) {
        self.x509_svid_key.zeroize();
    }
}

impl std::fmt::Debug for workload::X509svid {
    /// Without the private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "X509svid({})", self.spiffe_id)
    }
}
