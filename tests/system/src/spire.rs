//! The real spire-server on keyd's plugins.

use std::path::Path;

use anyhow::Result;

use crate::binary;

/// The plugin blocks of a server whose keys and root keyd holds: HCL, as an operator writes it.
///
/// # Errors
/// The plugin was not built.
pub fn server_plugins(socket: &Path, root_certificate: &Path) -> Result<String> {
    let (plugin, socket, root) = (binary("keyd-spire-plugin")?, socket.display(), root_certificate.display());
    let plugin = plugin.display();
    Ok(format!(
        r#"
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "keyd" {{
    plugin_cmd = "{plugin}"
    plugin_data {{
      socket = "{socket}"
      namespace = "spire-server"
      x509_ca_algorithm = "ml-dsa-65"
    }}
  }}
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
