//! The real spire-server on keyd's plugins.

use std::path::Path;

use anyhow::Result;

use crate::binary;

/// The blocks of the plugins by which a server takes in nodes that are in a directory of manifests and have an
/// endorsement key of these makers, and certifies attested keys alone: HCL, as an operator writes it.
///
/// # Errors
/// The plugin was not built.
pub fn attestation_plugins(socket: &Path, enrolled: &Path, ek_roots: &Path) -> Result<String> {
    let (plugin, socket) = (binary("keyd-spire-plugin")?, socket.display());
    let (plugin, enrolled, ek_roots) = (plugin.display(), enrolled.display(), ek_roots.display());
    Ok(format!(
        r#"
  NodeAttestor "keyd_tpm" {{
    plugin_cmd = "{plugin}"
    plugin_data {{
      socket = "{socket}"
      enrolled = "{enrolled}"
      ek_roots = "{ek_roots}"
      pcrs = [0, 7]
    }}
  }}
  CredentialComposer "keyd" {{
    plugin_cmd = "{plugin}"
    plugin_data {{ socket = "{socket}" }}
  }}
"#
    ))
}

/// The plugin blocks of a server whose keys and root keyd holds, its CA keys ML-DSA-65: HCL, as an operator writes it.
///
/// # Errors
/// The plugin was not built.
pub fn server_plugins(socket: &Path, root_certificate: &Path) -> Result<String> {
    let manager = key_manager(socket, "x509_ca_algorithm = \"ml-dsa-65\"")?;
    let (plugin, socket, root) = (binary("keyd-spire-plugin")?, socket.display(), root_certificate.display());
    let plugin = plugin.display();
    Ok(format!(
        r#"{manager}
  UpstreamAuthority "keyd" {{
    plugin_cmd = "{plugin}"
    plugin_data {{
      socket = "{socket}"
      root_key = "spire-root/root"
      root_certificate = "{root}"
    }}
  }}
"#
    ))
}

/// The plugin block of a server whose keys keyd holds, with more of its `plugin_data`: HCL, as an operator writes it.
///
/// # Errors
/// The plugin was not built.
pub fn key_manager(socket: &Path, settings: &str) -> Result<String> {
    let (plugin, socket) = (binary("keyd-spire-plugin")?, socket.display());
    let plugin = plugin.display();
    Ok(format!(
        r#"
  KeyManager "keyd" {{
    plugin_cmd = "{plugin}"
    plugin_data {{
      socket = "{socket}"
      namespace = "spire-server"
      {settings}
    }}
  }}
"#
    ))
}
