//! What the fuzz targets of this crate reach beyond its public interface.

use std::time::{Duration, SystemTime};

use keyd_core::Failure;
use keyd_tls::Bundles;
use keyd_unix::ConfigFile;
use keyd_x509::{Certificate, TrustDomain};
use prost::Message;

use crate::cli;
use crate::config::Config;
use crate::entry::Entry;
use crate::proto::types;
use crate::server::numbered;
use crate::svid::chain::read_chain;
use crate::workload::files;

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

/// Reads an SVID that a SPIRE server issued, as if its last certificate were the bundle, so that all of it is looked at.
///
/// # Errors
/// What is wrong with it.
pub fn svid(bytes: &[u8], now: SystemTime) -> Result<(), String> {
    let chain = types::X509svid::decode(bytes).map_err(|e| e.to_string())?.cert_chain;
    let (Some(leaf), Some(last)) = (chain.first(), chain.last()) else {
        return Err("the chain is empty".to_owned());
    };
    let read = |der: &[u8]| Certificate::from_der(der).map_err(|e| e.to_string());
    let (leaf, root) = (read(leaf)?, read(last)?);
    let key = leaf.public_key().map_err(|e| e.to_string())?;
    let id = leaf.leaf_spiffe_id().map_err(|e| e.to_string())?;
    let mut bundles = Bundles::default();
    bundles.set(id.trust_domain().clone(), &[root]).map_err(|e| e.to_string())?;
    let (chain, lifetime) = read_chain(&chain, &key, &id, &bundles, now)?;
    assert!(chain.iter().all(|c| c.not_after() >= lifetime.not_after) && lifetime.not_after > now);
    assert!(lifetime.renew_at <= lifetime.not_after + Duration::from_secs(1));
    Ok(())
}

/// Reads the certificates that a workload gets, one after another.
///
/// # Errors
/// What is wrong with them.
pub fn certificates(bytes: &[u8]) -> Result<(), Failure> {
    let read = cli::certificates(bytes)?;
    assert!(read.iter().flat_map(Certificate::der).eq(bytes), "all of them, and nothing else");
    Ok(())
}

/// Reads `/proc/PID/status`, as the kernel writes it.
pub fn process_status(text: &str) {
    let _ = files::groups(text);
}
