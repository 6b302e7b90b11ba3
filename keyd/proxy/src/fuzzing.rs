//! What the fuzz target of this crate reaches beyond its public interface.

use keyd_core::Failure;
use keyd_unix::ConfigFile;

use crate::config::Config;

/// Reads a `proxy.toml`.
///
/// # Errors
/// As the proxy reports them.
pub fn config(text: &str) -> Result<(), Failure> {
    Config::parse("proxy.toml", text).map(|config| {
        assert!(!config.allow.is_empty(), "a proxy that lets in nobody");
    })
}
