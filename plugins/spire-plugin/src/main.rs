//! The one plugin binary: it is the plugin that SPIRE asks for.

use std::process::ExitCode;

use plugin_sdk::PluginType;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let services = match PluginType::asked_for() {
        Some(PluginType::KeyManager) => plugin_keymanager::services(),
        Some(PluginType::UpstreamAuthority) => plugin_upstreamauthority::services(),
        Some(PluginType::NodeAttestor) => plugin_nodeattestor::services(),
        Some(PluginType::CredentialComposer) => plugin_credentialcomposer::services(),
        None => {
            eprintln!(
                "This is a plugin of SPIRE, which starts it: name it as plugin_cmd of a KeyManager, UpstreamAuthority, \
                 NodeAttestor or CredentialComposer in SPIRE's configuration."
            );
            return ExitCode::FAILURE;
        }
    };
    plugin_sdk::run(services).await
}
