//! The stock agent attests with its TPM, and is certified for the attested key alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyd_attest::Manifest;
use peers::spire::{AgentConfig, ServerConfig, SpireAgent, SpireServer};
use peers::swtpm::Swtpm;
use system::keyd::Keyd;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::{PLUGIN, chain, complaints, keyd};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
const DOMAIN: &str = "attest.test";
/// How long an agent's certificate lives; the agent has a new one made at half of it.
const AGENT_TTL: Duration = Duration::from_secs(20);
/// The stock agent's own KeyManager instead of keyd's.
const MEMORY: &str = "KeyManager \"memory\" { plugin_data {} }";

/// A server and a node, each with its keyd.
struct Field {
    dir: TempDir,
    server: SpireServer,
    port: u16,
    node: Keyd,
    swtpm: Swtpm,
    // Kept for as long as the server.
    _keyd: Keyd,
}

impl Field {
    /// A server that wants a certificate of the TPM's authority and, in `DIR/enrolled`, a manifest.
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (server_dir, node_dir, enrolled) = (path("s"), path("n"), path("enrolled"));
        let swtpm = Swtpm::start(&path("tpm")).unwrap();
        let roots: Vec<u8> = swtpm.ek_roots().iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
        let roots_file = dir.path().join("ek-roots.pem");
        std::fs::write(&roots_file, roots).unwrap();

        let keyd = keyd::start(&server_dir, "").await;
        let mut config = ServerConfig::hcl(DOMAIN, plugins(&keyd, &roots_file, &enrolled)).unwrap();
        config.settings = format!("agent_ttl = \"{}s\"", AGENT_TTL.as_secs());
        let server = SpireServer::start(&server_dir, &config).await.unwrap();
        let node = keyd::start(&node_dir, &format!("[tpm]\ntcti = \"{}\"\n", swtpm.tcti())).await;
        Self { dir, server, port: config.port, node, swtpm, _keyd: keyd }
    }

    /// Writes the manifest of the node's TPM as it is now; the hash of its endorsement key.
    async fn enrol(&self) -> String {
        let show = ["--json", "node", "show", "--node", "edge-17", "--pcrs", "0,7"];
        let shown = self.node.output(&show).await.unwrap();
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        let manifest = String::from_utf8(shown.stdout).unwrap();
        std::fs::write(self.enrolled("edge-17.json"), &manifest).unwrap();
        let [manifest] = Manifest::parse_all("edge-17", &manifest).unwrap().try_into().unwrap();
        hex::encode(manifest.ek_sha256)
    }

    /// A file in the server's list.
    fn enrolled(&self, file: &str) -> PathBuf {
        self.dir.path().join("enrolled").join(file)
    }

    /// Starts the stock agent under a fresh directory, its keys where `key_manager` says.
    async fn agent(&self, name: &str, key_manager: &str) -> anyhow::Result<SpireAgent> {
        let socket = self.node.socket();
        let config = AgentConfig {
            trust_domain: DOMAIN.to_owned(),
            server_port: self.port,
            bundle: self.server.bundle().await?,
            join_token: None,
            settings: String::new(),
            plugins: format!(
                r#"
WorkloadAttestor "unix" {{ plugin_data {{}} }}
NodeAttestor "keyd_tpm" {{
  plugin_cmd = "{PLUGIN}"
  plugin_data {{
    socket = {socket:?}
    namespace = "spire-agent"
  }}
}}
{key_manager}
"#
            ),
        };
        SpireAgent::start(&self.dir.path().join(name), &config).await
    }

    /// Starts an agent that must be refused with this sentence. SPIRE's agent gives up at once on some codes and tries
    /// for a minute on others; the first refusal is enough.
    async fn refused(&self, name: &str, key_manager: &str, sentence: &str) {
        let log = self.dir.path().join(name).join("spire-agent.log");
        let said = async {
            while !std::fs::read_to_string(&log).unwrap_or_default().contains(sentence) {
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            started = self.agent(name, key_manager) => match started {
                Ok(_) => panic!("attested"),
                Err(error) => assert!(format!("{error:#}").contains(sentence), "{error:#}"),
            },
            () = said => {}
        }
    }

    fn keyd_keys(&self) -> String {
        format!(
            r#"KeyManager "keyd" {{
  plugin_cmd = "{PLUGIN}"
  plugin_data {{
    socket = {:?}
    namespace = "spire-agent"
  }}
}}"#,
            self.node.socket()
        )
    }
}

fn plugins(keyd: &Keyd, roots: &Path, enrolled: &Path) -> String {
    let (socket, roots, enrolled) = (keyd.socket(), roots.display(), enrolled.display());
    format!(
        r#"
KeyManager "memory" {{ plugin_data {{}} }}
NodeAttestor "keyd_tpm" {{
  plugin_cmd = "{PLUGIN}"
  plugin_data {{
    socket = {socket:?}
    ek_roots = "{roots}"
    enrolled = "{enrolled}"
    pcrs = [7]
  }}
}}
CredentialComposer "keyd" {{
  plugin_cmd = "{PLUGIN}"
  plugin_data {{ socket = {socket:?} }}
}}
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_attests_with_its_tpm_once_enrolled_and_until_a_pcr_moves() {
    let mut field = Field::new().await;
    let keys = field.keyd_keys();
    field.refused("unknown", &keys, "is not enrolled; add the node's manifest").await;

    let ek = field.enrol().await;
    let agent = field.agent("a", &keys).await.unwrap();
    let id = format!("spiffe://{DOMAIN}/spire/agent/keyd_tpm/{ek}");
    let shown = field.server.command(&["agent", "show", "-spiffeID", &id]).await.unwrap();
    for selector in [
        format!("ek:{ek}"),
        "manufacturer:id:00001014".to_owned(),
        format!("pcr:sha256:7:{}", "00".repeat(32)),
    ] {
        assert!(shown.contains(&format!("keyd_tpm:{selector}")), "{selector}: {shown}");
    }
    assert!(shown.contains("Can re-attest     : true"), "{shown}");
    let log = agent.process.log().unwrap();
    assert_eq!(complaints(&log), [""; 0], "{log}");

    let uid = format!("unix:uid:{}", nix::unistd::getuid());
    field.server.entry_create(&id, "spiffe://attest.test/app", &[&uid]).await.unwrap();
    let svid = agent.fetch().await.unwrap();
    assert_eq!(chain(&svid.svid)[0].leaf_spiffe_id().unwrap().as_str(), "spiffe://attest.test/app");
    agent.stop().await.unwrap();

    field.node.kill().await.unwrap();
    let extend = field.swtpm.tool("tpm2_pcrextend").arg(format!("7:sha256={}", "ab".repeat(32))).output();
    assert!(extend.unwrap().status.success());
    field.node = Keyd::restart(&field.dir.path().join("n")).await.unwrap();
    let moved =
        format!("the manifest says {}: firmware, boot loader or configuration changed", "00".repeat(32));
    field.refused("moved", &keys, &moved).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_is_another_attestation_that_vouches_for_the_new_key() {
    let field = Field::new().await;
    field.enrol().await;
    let agent = field.agent("a", &field.keyd_keys()).await.unwrap();
    let renewed = async {
        while !agent.process.log().unwrap().contains("Successfully reattested node") {
            sleep(PAUSE).await;
        }
    };
    timeout(AGENT_TTL, renewed).await.expect("the agent attests again");
    assert_eq!(
        keyd::algorithms(&field.node, "spire-agent").await.len(),
        2,
        "with a new key in the other slot"
    );
    agent.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_attestation_did_not_name_is_not_certified() {
    let field = Field::new().await;
    field.enrol().await;
    let keys = field.keyd_keys();
    field.agent("a", &keys).await.unwrap().stop().await.unwrap();
    // The TPM vouches for the keys in keyd; the agent would have another certified.
    field.refused("other", MEMORY, "did not vouch for the key").await;
    let log = field.server.process.log().unwrap();
    assert!(log.contains("Refused to certify an agent's key"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_read_lets_nobody_in() {
    let field = Field::new().await;
    field.enrol().await;
    std::fs::write(field.enrolled("broken.json"), "{").unwrap();
    field.refused("a", &field.keyd_keys(), "its log says why").await;
    let log = field.server.process.log().unwrap();
    assert!(log.contains("broken.json: EOF while parsing"), "{log}");
}
