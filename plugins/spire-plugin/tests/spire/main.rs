//! The plugins under the real spire-server and spire-agent.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod credential_composer;
mod key_manager;
mod keyd;
mod node_attestor;
mod plugin;
mod upstream_authority;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use keyd_core::Algorithm;
use keyd_x509::{Certificate, parse_pem_chain};
use peers::spire::{AgentConfig, Language, ServerConfig, SpireAgent, SpireServer};
use system::keyd::Keyd;
use tokio::time::{Instant, sleep};

const PLUGIN: &str = env!("CARGO_BIN_EXE_keyd-spire-plugin");
const DOMAIN: &str = "plugins.test";

fn plugins_hcl(keyd: &Keyd, root: &Path) -> String {
    let (socket, root) = (keyd.socket(), root.display());
    format!(
        r#"
NodeAttestor "join_token" {{ plugin_data {{}} }}
KeyManager "keyd" {{
  plugin_cmd = "{PLUGIN}"
  plugin_data {{
    # The server's own keys.
    socket = {socket:?}
    namespace = "spire-server"
    x509_ca_algorithm = "ml-dsa-65"
  }}
}}
UpstreamAuthority "keyd" {{
  plugin_cmd = "{PLUGIN}"
  plugin_data {{
    socket = {socket:?}
    root_key = "spire-root/root"
    root_certificate = "{root}"
  }}
}}
"#
    )
}

fn plugins_json(keyd: &Keyd, root: &Path) -> String {
    let (socket, root) = (keyd.socket(), root.display());
    format!(
        r#"
"KeyManager": {{ "keyd": {{ "plugin_cmd": "{PLUGIN}", "plugin_data": {{
  "socket": {socket:?}, "namespace": "spire-server", "x509_ca_algorithm": "ml-dsa-65" }} }} }},
"UpstreamAuthority": {{ "keyd": {{ "plugin_cmd": "{PLUGIN}", "plugin_data": {{
  "socket": {socket:?}, "root_key": "spire-root/root", "root_certificate": "{root}" }} }} }}
"#
    )
}

fn chain(file: &Path) -> Vec<Certificate> {
    parse_pem_chain("test", &std::fs::read(file).unwrap()).unwrap()
}

fn algorithm(certificate: &Certificate) -> Algorithm {
    certificate.public_key().unwrap().algorithm()
}

/// Lines of SPIRE's log that say something is wrong with a plugin.
fn complaints(log: &str) -> Vec<&str> {
    let is_one = |line: &&str| {
        (line.contains("plugin") && line.contains("level=error"))
            || ["Unsupported plugin service", "report this bug"].iter().any(|words| line.contains(words))
    };
    log.lines().filter(is_one).collect()
}

/// Directories of plugins' sockets under SPIRE's directory for temporary files.
fn sockets(spire: &Path) -> BTreeSet<OsString> {
    let entries = std::fs::read_dir(spire.join("tmp")).unwrap().map(|e| e.unwrap().file_name());
    entries.filter(|name| name.to_string_lossy().starts_with("keyd-plugin-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_issues_under_an_ml_dsa_ca_and_root() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let root = keyd::root(&keyd, dir.path(), DOMAIN).await;
    let config = ServerConfig::hcl(DOMAIN, plugins_hcl(&keyd, &root)).unwrap();
    let server = SpireServer::start(dir.path(), &config).await.unwrap();

    let minted = server.mint("spiffe://plugins.test/web").await.unwrap();
    let svid = chain(&minted.svid);
    assert_eq!(svid.len(), 2, "the leaf and SPIRE's CA");
    assert_eq!(svid[0].leaf_spiffe_id().unwrap().as_str(), "spiffe://plugins.test/web");
    assert_eq!(algorithm(&svid[1]), Algorithm::MlDsa65);
    assert_eq!(svid[1].uri_id().unwrap().as_str(), "spiffe://plugins.test");
    assert_eq!(chain(&minted.bundle), chain(&root), "the bundle is keyd's root");
    assert_eq!(keyd::algorithms(&keyd, "spire-server").await["x509-CA-A"], Algorithm::MlDsa65);
    assert_eq!(keyd::algorithms(&keyd, "spire-server").await["JWT-Signer-A"], Algorithm::EcP256);

    let plugins = server.process.children().unwrap();
    let before = Instant::now();
    // As systemd does it: to the plugins too.
    for plugin in plugins {
        nix::sys::signal::kill(plugin, nix::sys::signal::Signal::SIGTERM).unwrap();
    }
    assert_eq!(sockets(dir.path()).len(), 2);
    server.stop().await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    assert!(sockets(dir.path()).is_empty());
    let log = std::fs::read_to_string(dir.path().join("spire-server.log")).unwrap();
    assert_eq!(complaints(&log), [""; 0], "{log}");
    assert!(log.contains("level=info msg=\"Issued SPIRE's CA\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_in_json_works_too_and_a_restart_keeps_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let root = keyd::root(&keyd, dir.path(), DOMAIN).await;
    let mut config = ServerConfig::hcl(DOMAIN, plugins_json(&keyd, &root)).unwrap();
    config.language = Language::Json;

    let first = SpireServer::start(dir.path(), &config).await.unwrap();
    let old = chain(&first.mint("spiffe://plugins.test/a").await.unwrap().svid);
    first.stop().await.unwrap();
    let second = SpireServer::start(dir.path(), &config).await.unwrap();
    let new = second.mint("spiffe://plugins.test/a").await.unwrap();
    assert_ne!(chain(&new.svid)[1], old[1], "SPIRE makes a new CA");
    assert_eq!(chain(&new.bundle), chain(&root));
    assert!(second.process.log().unwrap().contains("jwt_keys=1"), "the JWT key is found again");
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_sockets_that_its_next_start_removes() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let root = keyd::root(&keyd, dir.path(), DOMAIN).await;
    let config = ServerConfig::hcl(DOMAIN, plugins_hcl(&keyd, &root)).unwrap();
    SpireServer::start(dir.path(), &config).await.unwrap().process.kill().await.unwrap();
    let dead = sockets(dir.path());
    assert_eq!(dead.len(), 2);

    let server = SpireServer::start(dir.path(), &config).await.unwrap();
    assert!(sockets(dir.path()).is_disjoint(&dead));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_keyd_is_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let root = keyd::root(&keyd, dir.path(), DOMAIN).await;
    let config = ServerConfig::hcl(DOMAIN, plugins_hcl(&keyd, &root)).unwrap();
    let server = SpireServer::start(dir.path(), &config).await.unwrap();

    keyd.kill().await.unwrap();
    let (minted, _keyd) = tokio::join!(server.mint("spiffe://plugins.test/web"), async {
        sleep(Duration::from_secs(3)).await;
        Keyd::restart(dir.path()).await.unwrap()
    });
    minted.unwrap();
    assert!(server.process.log().unwrap().contains("Trying again"));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_in_plugin_data_ends_the_server_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let root = keyd::root(&keyd, dir.path(), DOMAIN).await;
    let good = plugins_hcl(&keyd, &root);
    for (plugins, wanted) in [
        (good.replace("namespace =", "namespaec ="), "unknown field `namespaec`"),
        (good.replace("ml-dsa-65", "ml-dsa65"), "Did you mean ml-dsa-65?"),
        (good.replace("root.pem", "none.pem"), "none.pem: No such file or directory"),
        (good.replace("\"spire-root/root\"", "\"root\""), "it must be NAMESPACE/ID"),
    ] {
        let config = ServerConfig::hcl(DOMAIN, plugins).unwrap();
        let Err(error) = SpireServer::start(dir.path(), &config).await else {
            panic!("{wanted}: it started")
        };
        assert!(format!("{error:#}").contains(wanted), "{wanted}: {error:#}");
    }
    let other = ServerConfig::hcl("other.test", good).unwrap();
    let Err(error) = SpireServer::start(dir.path(), &other).await else { panic!("it started") };
    assert!(error.to_string().contains("SPIRE's trust domain is other.test"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spires_validate_command_checks_plugin_data() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let root = keyd::root(&keyd, dir.path(), DOMAIN).await;
    let mut config = ServerConfig::hcl(DOMAIN, plugins_hcl(&keyd, &root)).unwrap();
    config.validate(dir.path()).await.unwrap();
    config.plugins = config.plugins.replace("root_key", "rootkey");
    let error = config.validate(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("unknown field `rootkey`"), "{error}");
    assert!(error.contains("Did you mean"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_keeps_its_key_in_keyd() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = keyd::start(dir.path(), "").await;
    let root = keyd::root(&keyd, dir.path(), DOMAIN).await;
    let config = ServerConfig::hcl(DOMAIN, plugins_hcl(&keyd, &root)).unwrap();
    let server = SpireServer::start(&dir.path().join("s"), &config).await.unwrap();
    let node = "spiffe://plugins.test/node";
    let uid = format!("unix:uid:{}", nix::unistd::getuid());
    server.entry_create(node, "spiffe://plugins.test/app", &[&uid]).await.unwrap();

    let agent = AgentConfig {
        trust_domain: DOMAIN.to_owned(),
        server_port: config.port,
        bundle: server.bundle().await.unwrap(),
        join_token: Some(server.join_token(node).await.unwrap()),
        settings: String::new(),
        plugins: format!(
            r#"
NodeAttestor "join_token" {{ plugin_data {{}} }}
WorkloadAttestor "unix" {{ plugin_data {{}} }}
KeyManager "keyd" {{
  plugin_cmd = "{PLUGIN}"
  plugin_data {{
    socket = {:?}
    namespace = "spire-agent"
  }}
}}
"#,
            keyd.socket()
        ),
    };
    let agent = SpireAgent::start(&dir.path().join("a"), &agent).await.unwrap();
    let svid = agent.fetch().await.unwrap();
    assert_eq!(chain(&svid.svid)[0].leaf_spiffe_id().unwrap().as_str(), "spiffe://plugins.test/app");
    assert_eq!(keyd::algorithms(&keyd, "spire-agent").await["agent-svid-A"], Algorithm::EcP256);
    let log = agent.process.log().unwrap();
    assert_eq!(complaints(&log), [""; 0], "{log}");
    agent.stop().await.unwrap();
    server.stop().await.unwrap();
}
