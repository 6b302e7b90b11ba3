//! What the fuzz target of this crate reaches beyond its public interface.

use keyd_core::Failure;
use serde_json::Value;

/// Reads plugin_data, HCL or JSON.
///
/// # Errors
/// As SPIRE prints them, on one line.
pub fn plugin_data(text: &str) -> Result<Value, Failure> {
    crate::hcl::parse(text)
}
