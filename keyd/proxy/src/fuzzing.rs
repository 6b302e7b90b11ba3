//! What the fuzz targets of this crate reach beyond its public interface.

use std::sync::Arc;

use keyd_api::agent::AgentIdentity;
use keyd_core::{BoxFuture, Failure, Reason};
use keyd_tls::RemoteSigner;
use keyd_unix::ConfigFile;
use keyd_x509::Certificate;

use crate::config::Config;
use crate::identity;

/// Reads a `proxy.toml`.
///
/// # Errors
/// As the proxy reports them.
pub fn config(text: &str) -> Result<(), Failure> {
    Config::parse("proxy.toml", text).map(|config| {
        assert!(!config.allow.is_empty(), "a proxy that lets in nobody");
    })
}

/// Takes up an identity that the agent gave.
pub fn identity(given: &AgentIdentity) {
    if let Ok((identity, _)) = identity::read(given, Arc::new(Nobody)) {
        let chain = given.chain.iter().filter_map(|der| Certificate::from_der(der).ok());
        assert_eq!(chain.map(|c| c.not_after()).min(), Some(identity.not_after()));
    }
}

struct Nobody;

impl RemoteSigner for Nobody {
    fn sign<'a>(&'a self, _message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(async { Err(Failure::new(Reason::Unreachable, "nobody signs")) })
    }
}
