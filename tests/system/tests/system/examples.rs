//! Every configuration in `docs/examples` is started as it stands, with its places moved under a directory, its ports
//! to free ones and its users to this one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use keyd_core::{Algorithm, Protection};
use peers::spire::free_port;
use peers::swtpm::Swtpm;
use serde_json::Value;
use system::binary;
use system::keyd::{Keyd, write_private};
use system::service::Service;
use tempfile::TempDir;
use tokio::process::Command;

const SERVER: &str = "spire-server";
const AGENT: &str = "spire-agent";

/// A machine's file system, as far as the examples name it.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        // Short: a socket's path has 107 bytes at most.
        let machine = Self(tempfile::Builder::new().prefix("m").tempdir().unwrap());
        for dir in
            ["etc/keyd/enrolled", "etc/spire-agent", "run", "var/lib/spire-server", "var/lib/spire-agent"]
        {
            fs::create_dir_all(machine.path(dir)).unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts an example where `name` says, with `changes` beyond the usual ones.
    fn install(&self, example: &str, name: &str, changes: &[(&str, &str)]) -> PathBuf {
        let mut text = fs::read_to_string(examples().join(example)).unwrap();
        for place in ["/tmp/", "/etc/", "/run/", "/var/lib/"] {
            let moved = format!("\"{}{place}", self.0.path().display());
            text = text.replace(&format!("\"{place}"), &moved);
        }
        for (from, to) in changes {
            assert!(text.contains(from), "{example} does not say {from}");
            text = text.replace(from, to);
        }
        let user = nix::unistd::geteuid().to_string();
        let mine = |line: &str| match line.strip_prefix("users = ") {
            Some(_) => format!("users = [{user}]\n"),
            None => format!("{line}\n"),
        };
        let file = self.path(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text.lines().map(mine).collect::<String>()).unwrap();
        file
    }

    /// keyd on `etc/keyd/keyd.toml`, every device well.
    async fn keyd(&self) -> Keyd {
        let (config, socket) = (self.path("etc/keyd/keyd.toml"), self.path("run/keyd/keyd.sock"));
        let keyd = Keyd::on(&config, socket, &self.path("keyd.log")).await.unwrap();
        let status = keyd.json(&["status"]).await.unwrap();
        for device in status["devices"].as_array().unwrap() {
            assert_eq!(device["state"], "ok", "{device}");
        }
        keyd
    }

    /// spire-server or spire-agent on a configuration; it listens once it is up and attested.
    async fn spire(&self, name: &str, config: &Path) -> Service {
        let program = peers::dir().join("spire").join(name);
        let args = ["run".as_ref(), "-config".as_ref(), config.as_os_str()];
        let mut service = Service::spawn(&program, args, &self.path(&format!("{name}.log"))).unwrap();
        service.listens_on(&self.path(&format!("run/{name}/api.sock"))).await.unwrap();
        service
    }

    async fn ask_server(&self, args: &[&str]) -> String {
        let mut command = Command::new(peers::dir().join("spire").join(SERVER));
        command.args(args).arg("-socketPath").arg(self.path("run/spire-server/api.sock"));
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples")
}

/// A host for spire-server as keyd-server.toml wants it, up to the root's certificate.
async fn server_host() -> (Machine, Keyd) {
    let machine = Machine::new();
    let tokens = machine.path("var/lib/keyd/tokens");
    fs::create_dir_all(&tokens).unwrap();
    let softhsm = machine.path("etc/keyd/softhsm2.conf");
    fs::write(&softhsm, format!("directories.tokendir = {}\n", tokens.display())).unwrap();
    let (so_pin, pin) = (machine.path("so-pin"), machine.path("etc/keyd/hsm-pin"));
    write_private(&so_pin, "so-pin-87654321").unwrap();
    write_private(&pin, "user-pin-1234").unwrap();
    let module = "/usr/lib/softhsm/libsofthsm2.so";
    let init = Command::new(binary("keyd").unwrap())
        .args(["token", "init", "--label", "spire", "--module", module, "--so-pin-file"])
        .arg(so_pin)
        .arg("--pin-file")
        .arg(pin)
        .arg(format!("--environment=SOFTHSM2_CONF={}", softhsm.display()))
        .output()
        .await
        .unwrap();
    assert!(init.status.success(), "{init:?}");

    machine.install("keyd-server.toml", "etc/keyd/keyd.toml", &[]);
    let keyd = machine.keyd().await;
    let root = machine.path("etc/keyd/root.pem").display().to_string();
    keyd.json(&["ca", "init", "--trust-domain", "example.org", "--out", &root]).await.unwrap();
    (machine, keyd)
}

/// A field node as keyd-field.toml wants it.
async fn field_node() -> (Machine, Swtpm, Keyd) {
    let machine = Machine::new();
    let tpm = Swtpm::start(&machine.path("tpm")).unwrap();
    let tcti = tpm.tcti();
    machine.install("keyd-field.toml", "etc/keyd/keyd.toml", &[("device:/dev/tpmrm0", &tcti)]);
    let keyd = machine.keyd().await;
    (machine, tpm, keyd)
}

#[test]
fn every_example_is_started_here() {
    let started = concat!(include_str!("examples.rs"), "spire-server.conf spire-agent.conf");
    let names: Vec<_> =
        fs::read_dir(examples()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 9, "{names:?}");
    for name in names {
        assert!(started.contains(&name) || started.contains(name.trim_end_matches(".json")), "{name}");
    }
}

#[tokio::test]
async fn the_development_keyd_starts_and_says_what_it_is() {
    let machine = Machine::new();
    machine.install(
        "keyd-development.toml",
        "etc/keyd/keyd.toml",
        &[("/keyd-development/keyd.sock", "/keyd.sock")],
    );
    let (config, socket) = (machine.path("etc/keyd/keyd.toml"), machine.path("tmp/keyd.sock"));
    let keyd = Keyd::on(&config, socket, &machine.path("keyd.log")).await.unwrap();
    let made = keyd.json(&["key", "create", "dev/web"]).await.unwrap();
    assert_eq!((&made["algorithm"], &made["protection"]), (&"ml-dsa-65".into(), &"software".into()));
    keyd.stop().await.unwrap();
}

#[tokio::test]
async fn the_field_keyd_seals_for_the_agent_and_its_workloads() {
    let (_machine, _tpm, keyd) = field_node().await;
    for key in ["keyd-agent/svid", "workload/web"] {
        let made = keyd.client().create_key(&key.parse().unwrap(), Algorithm::MlDsa65, None).await.unwrap();
        assert_eq!(made.protection, Protection::TpmSealed);
    }
    keyd.stop().await.unwrap();
}

#[tokio::test]
async fn the_proxy_takes_its_example() {
    let machine = Machine::new();
    let config = machine.install("proxy.toml", "etc/keyd/proxy/web.toml", &[]);
    let check = Command::new(binary("keyd-proxy").unwrap())
        .args(["config", "check", "--config"])
        .arg(config)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(
        check.status.success() && said.contains("is valid; 0.0.0.0:8443 to 127.0.0.1:8080, 2 rules"),
        "{said}"
    );
}

#[tokio::test]
async fn the_hcl_of_server_and_agent_attests_a_node() {
    attests_a_node("conf").await;
}

#[tokio::test]
async fn the_json_of_server_and_agent_attests_a_node() {
    attests_a_node("json").await;
}

/// spire-server on keyd-server.toml, spire-agent on keyd-field.toml, until the node's TPM has attested it.
async fn attests_a_node(language: &str) {
    let ((host, server_keyd), (node, tpm, node_keyd)) = tokio::join!(server_host(), field_node());
    let roots: Vec<_> = tpm.ek_roots().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    fs::write(host.path("etc/keyd/ek-roots.pem"), roots.concat()).unwrap();
    let manifest = node_keyd.json(&["node", "show", "--node", "edge-17", "--pcrs", "7"]).await.unwrap();
    fs::write(host.path("etc/keyd/enrolled/edge-17.json"), manifest.to_string()).unwrap();

    let plugin = binary("keyd-spire-plugin").unwrap().display().to_string();
    let port = format!("\"{}\"", free_port().unwrap());
    let changes = [("\"8081\"", port.as_str()), ("/usr/bin/keyd-spire-plugin", plugin.as_str())];
    let config = host.install(
        &format!("{SERVER}.{language}"),
        &format!("{SERVER}.{language}"),
        &[&changes[..], &[("0.0.0.0", "127.0.0.1")]].concat(),
    );
    let server = host.spire(SERVER, &config).await;
    let ca = server_keyd.json(&["key", "show", "spire-server/x509-CA-A"]).await.unwrap();
    assert_eq!((&ca["algorithm"], &ca["protection"]), (&"ml-dsa-65".into(), &"hsm-wrapped".into()));

    fs::write(node.path("etc/spire-agent/bundle.pem"), host.ask_server(&["bundle", "show"]).await).unwrap();
    let name = format!("{AGENT}.{language}");
    let config = node.install(&name, &name, &changes);
    let agent = node.spire(AGENT, &config).await;
    let agents: Value =
        serde_json::from_str(&host.ask_server(&["agent", "list", "-output", "json"]).await).unwrap();
    let attested = &agents["agents"][0];
    assert_eq!(attested["attestation_type"], "keyd_tpm", "{agents}");
    let path = format!("/spire/agent/keyd_tpm/{}", manifest["ek_sha256"].as_str().unwrap());
    assert_eq!(attested["id"]["path"], path);
    let key = node_keyd.json(&["key", "list", "spire-agent"]).await.unwrap();
    assert_eq!(key["keys"][0]["protection"], "tpm-sealed", "{key}");

    for service in [agent, server] {
        service.stop().await.unwrap();
    }
    for keyd in [node_keyd, server_keyd] {
        keyd.stop().await.unwrap();
    }
}
