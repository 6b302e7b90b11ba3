//! The one plugin binary: it is the plugin that SPIRE asks for.

use std::process::ExitCode;

use plugin_sdk::PluginType;

/// What a person is told who starts it.
const HELP: &str = r#"keyd-spire-plugin is a plugin of SPIRE's server and agent, which start it. Name it as plugin_cmd:

  KeyManager "keyd" {
    plugin_cmd = "/usr/bin/keyd-spire-plugin"
    plugin_data { namespace = "spire-server", x509_ca_algorithm = "ml-dsa-65" }
  }

plugin_data of each type, beside socket (keyd's, /run/keyd/keyd.sock):
  KeyManager "keyd"             namespace, x509_ca_algorithm (server)
  UpstreamAuthority "keyd"      root_key, root_certificate, path_length
  NodeAttestor "keyd_tpm"       enrolled, ek_roots, pcrs (server); namespace (agent)
  CredentialComposer "keyd"     nothing

`spire-server validate -config FILE` checks it.
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let services = match PluginType::asked_for() {
        Some(PluginType::KeyManager) => plugin_keymanager::services(),
        Some(PluginType::UpstreamAuthority) => plugin_upstreamauthority::services(),
        Some(PluginType::NodeAttestor) => plugin_nodeattestor::services(),
        Some(PluginType::CredentialComposer) => plugin_credentialcomposer::services(),
        None => return explain(),
    };
    plugin_sdk::run(services).await
}

/// To whoever asks for help, or has mistaken it for a command.
fn explain() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(argument) if argument == "--help" || argument == "-h" => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Some(argument) if argument == "--version" => {
            println!("keyd-spire-plugin {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{HELP}");
            ExitCode::FAILURE
        }
    }
}
