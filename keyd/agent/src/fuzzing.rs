//! What the fuzz targets of this crate reach beyond its public interface.

use keyd_core::Failure;
use keyd_unix::ConfigFile;
use keyd_x509::TrustDomain;
use prost::Message;

use crate::config::Config;
use crate::entry::Entry;
use crate::proto::types;
use crate::server::numbered;

/// Reads an `agent.toml`.
///
/// # Errors
/// As the agent reports them.
pub fn config(text: &str) -> Result<(), Failure> {
    Config::parse("agent.toml", text).map(drop)
}

/// Reads an entry that a SPIRE server sent to an agent of this trust domain.
///
/// # Errors
/// What is wrong with it.
pub fn entry(bytes: &[u8], trust_domain: &TrustDomain) -> Result<(), String> {
    let entry = types::Entry::decode(bytes).map_err(|e| e.to_string())?;
    if let Some(entry) = Entry::new(entry, trust_domain)? {
        assert_eq!(entry.spiffe_id.trust_domain(), trust_domain);
        assert!(!entry.matches(&[].into()), "an entry for every process on the node");
    }
    Ok(())
}

/// Reads a bundle that a SPIRE server sent to an agent of this trust domain.
///
/// # Errors
/// What is wrong with it.
pub fn bundle(bytes: &[u8], trust_domain: &TrustDomain) -> Result<(), String> {
    let bundle = types::Bundle::decode(bytes).map_err(|e| e.to_string())?;
    let bundle = numbered("GetBundle", trust_domain, bundle).map_err(|e| e.to_string())?;
    assert!(!bundle.authorities.is_empty(), "a bundle that believes nobody");
    Ok(())
}
