//! Every configuration in `docs/examples` and in the README is started as it stands, with its places moved under a directory, its ports
//! to free ones and its users to this one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use peers::process::Process;
use peers::spire::free_port;
use peers::swtpm::Swtpm;
use serde_json::Value;
use system::binary;
use system::keyd::{Keyd, write_private};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

/// Where the package puts the plugin.
const PLUGIN: &str = "/usr/bin/keyd-spire-plugin";
/// Where the README and the examples put the root's certificate.
const ROOT: &str = "etc/spire/root.pem";

/// A machine's file system, as far as the examples name it.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        // Short: a socket's path has 107 bytes at most.
        let machine = Self(tempfile::Builder::new().prefix("m").tempdir().unwrap());
        for dir in ["etc/keyd", "etc/spire/enrolled", "run", "var/lib/spire-server", "var/lib/spire-agent"] {
            fs::create_dir_all(machine.path(dir)).unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts an example where `name` says, with `changes` beyond the usual ones.
    fn install(&self, example: &str, name: &str, changes: &[(&str, &str)]) -> PathBuf {
        self.install_text(fs::read_to_string(examples().join(example)).unwrap(), name, changes)
    }

    fn install_text(&self, mut text: String, name: &str, changes: &[(&str, &str)]) -> PathBuf {
        for place in ["/tmp/", "/etc/", "/run/", "/var/lib/"] {
            let moved = format!("\"{}{place}", self.0.path().display());
            text = text.replace(&format!("\"{place}"), &moved);
        }
        for (from, to) in changes {
            assert!(text.contains(from), "{name} does not say {from}");
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

    /// spire-server or spire-agent on a configuration; it listens once it is up, an agent once it is attested.
    async fn spire(&self, name: &str, config: &Path) -> Process {
        let mut run = Command::new(peers::dir().join("spire").join(name));
        run.args(["run", "-config"]).arg(config);
        let mut process = Process::spawn(&mut run, &self.path(&format!("{name}.log"))).unwrap();
        process.listens_on(&self.path(&format!("run/{name}/api.sock"))).await.unwrap();
        process
    }

    async fn ask_server(&self, args: &[&str]) -> String {
        let mut command = Command::new(peers::dir().join("spire/spire-server"));
        command.args(args).arg("-socketPath").arg(self.path("run/spire-server/api.sock"));
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples")
}

/// A code block of the README.
fn readme(language: &str) -> String {
    let readme = fs::read_to_string(examples().join("../../README.md")).unwrap();
    let block = readme.split_once(&format!("```{language}\n")).unwrap().1;
    block.split_once("```").unwrap().0.to_owned()
}

/// A host for spire-server as this configuration of keyd's wants it, up to the root's certificate.
async fn server_host(config: String) -> (Machine, Keyd) {
    let machine = Machine::new();
    let tokens = machine.path("var/lib/keyd/tokens");
    fs::create_dir_all(&tokens).unwrap();
    fs::set_permissions(machine.path("var/lib/keyd"), fs::Permissions::from_mode(0o700)).unwrap();
    let softhsm = machine.path("etc/keyd/softhsm2.conf");
    fs::write(&softhsm, format!("directories.tokendir = {}\n", tokens.display())).unwrap();
    let (so_pin, pin) = (machine.path("so-pin"), machine.path("etc/keyd/hsm-pin"));
    write_private(&so_pin, "so-pin-87654321").unwrap();
    write_private(&pin, "user-pin-1234").unwrap();
    let module = "/usr/lib/softhsm/libsofthsm2.so";
    let init = Command::new(binary("keyd").unwrap())
        .args(["token", "init", "--label", "keyd", "--module", module, "--so-pin-file"])
        .arg(so_pin)
        .arg("--pin-file")
        .arg(pin)
        .arg(format!("--environment=SOFTHSM2_CONF={}", softhsm.display()))
        .output()
        .await
        .unwrap();
    assert!(init.status.success(), "{init:?}");

    machine.install_text(config, "etc/keyd/keyd.toml", &[]);
    let keyd = machine.keyd().await;
    let root = machine.path(ROOT).display().to_string();
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

/// A host on keyd-server.toml that a spire-server of this language serves, and a node that it has enrolled.
struct Line {
    host: Machine,
    server_keyd: Keyd,
    server: Process,
    /// As the configurations write it.
    port: u16,
    node: Machine,
    node_keyd: Keyd,
    /// The id that the node's TPM gives its agent.
    agent_path: String,
    _tpm: Swtpm,
}

impl Line {
    async fn start(language: &str) -> Self {
        let config = fs::read_to_string(examples().join("keyd-server.toml")).unwrap();
        let host = server_host(config);
        let ((host, server_keyd), (node, tpm, node_keyd)) = tokio::join!(host, field_node());
        let roots: Vec<_> = tpm.ek_roots().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        fs::write(host.path("etc/spire/ek-roots.pem"), roots.concat()).unwrap();
        let manifest = node_keyd.json(&["node", "show", "--node", "edge-17", "--pcrs", "7"]).await.unwrap();
        fs::write(host.path("etc/spire/enrolled/edge-17.json"), manifest.to_string()).unwrap();
        let agent_path = format!("/spire/agent/keyd_tpm/{}", manifest["ek_sha256"].as_str().unwrap());

        let port = free_port().unwrap();
        let name = format!("spire-server.{language}");
        let changes = [("0.0.0.0", "127.0.0.1"), ("8081", &port.to_string()), (PLUGIN, &plugin())];
        let server = host.spire("spire-server", &host.install(&name, &name, &changes)).await;
        let ca = server_keyd.json(&["key", "show", "spire-server/x509-CA-A"]).await.unwrap();
        assert_eq!((&ca["algorithm"], &ca["protection"]), (&"ml-dsa-65".into(), &"hsm-wrapped".into()));
        Self { host, server_keyd, server, port, node, node_keyd, agent_path, _tpm: tpm }
    }

    /// The trust domain's roots, where the node's configuration wants them.
    async fn give_bundle(&self, name: &str) {
        fs::write(self.node.path(name), self.host.ask_server(&["bundle", "show"]).await).unwrap();
    }

    /// That the server knows the node's agent by its TPM, and that its keys are sealed.
    async fn is_attested(&self, namespace: &str) {
        let agents = self.host.ask_server(&["agent", "list", "-output", "json"]).await;
        let agents: Value = serde_json::from_str(&agents).unwrap();
        let attested = &agents["agents"][0];
        assert_eq!(attested["attestation_type"], "keyd_tpm", "{agents}");
        assert_eq!(attested["id"]["path"], self.agent_path);
        let keys = self.node_keyd.json(&["key", "list", namespace]).await.unwrap();
        assert_eq!(keys["keys"][0]["protection"], "tpm-sealed", "{keys}");
    }

    async fn stop(self, agent: Process) {
        for service in [agent, self.server] {
            service.stop().await.unwrap();
        }
        for keyd in [self.node_keyd, self.server_keyd] {
            keyd.stop().await.unwrap();
        }
    }
}

fn plugin() -> String {
    binary("keyd-spire-plugin").unwrap().display().to_string()
}

#[test]
fn every_example_is_started_here() {
    let mut names: Vec<_> =
        fs::read_dir(examples()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let started = [
        "agent.toml",
        "keyd-development.toml",
        "keyd-field.toml",
        "keyd-server.toml",
        "proxy.toml",
        "spire-agent.conf",
        "spire-agent.json",
        "spire-server.conf",
        "spire-server.json",
    ];
    assert_eq!(names, started);
}

#[tokio::test]
async fn the_development_keyd_makes_software_keys() {
    let machine = Machine::new();
    let config = machine.install("keyd-development.toml", "etc/keyd/keyd.toml", &[]);
    let socket = machine.path("tmp/keyd-development/keyd.sock");
    let keyd = Keyd::on(&config, socket, &machine.path("keyd.log")).await.unwrap();
    let made = keyd.json(&["key", "create", "dev/web"]).await.unwrap();
    assert_eq!((&made["algorithm"], &made["protection"]), (&"ml-dsa-65".into(), &"software".into()));
    keyd.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_runs_on_the_configuration_in_the_readme() {
    // The defaults, to be moved as all else.
    let places = "socket = \"/run/keyd/keyd.sock\"\nstate_dir = \"/var/lib/keyd\"\n".to_owned();
    let (host, keyd) = server_host(places + &readme("toml")).await;
    let port = free_port().unwrap();
    let socket = "plugin_data {\nsocket = \"/run/keyd/keyd.sock\"\n";
    let server = format!(
        "server {{\nbind_address = \"127.0.0.1\"\nbind_port = \"{port}\"\ntrust_domain = \"example.org\"\n\
         socket_path = \"/run/spire-server/api.sock\"\ndata_dir = \"/var/lib/spire-server\"\n}}\n\
         plugins {{\nDataStore \"sql\" {{\nplugin_data {{\ndatabase_type = \"sqlite3\"\n\
         connection_string = \"/var/lib/spire-server/datastore.sqlite3\"\n}}\n}}\n{}}}\n",
        readme("hcl").replace("plugin_data {", socket).replace(PLUGIN, &plugin())
    );
    let server = host.spire("spire-server", &host.install_text(server, "server.conf", &[])).await;
    let ca = keyd.json(&["key", "show", "spire-server/x509-CA-A"]).await.unwrap();
    assert_eq!((&ca["algorithm"], &ca["protection"]), (&"ml-dsa-65".into(), &"hsm-wrapped".into()));
    let bundle = host.ask_server(&["bundle", "show"]).await;
    assert_eq!(bundle.trim(), fs::read_to_string(host.path(ROOT)).unwrap().trim());
    server.stop().await.unwrap();
    keyd.stop().await.unwrap();
}

#[tokio::test]
async fn the_proxy_starts_with_its_example_and_waits_for_its_identity() {
    let machine = Machine::new();
    let port = free_port().unwrap();
    let listen = format!("127.0.0.1:{port}");
    let config = machine.install("proxy.toml", "etc/keyd/proxy/web.toml", &[("0.0.0.0:8443", &listen)]);
    let mut serve = Command::new(binary("keyd-proxy").unwrap());
    serve.args(["serve", "--config"]).arg(&config);
    let mut proxy = Process::spawn(&mut serve, &machine.path("proxy.log")).unwrap();
    proxy.until("listening", async || TcpStream::connect(&listen).await.is_ok()).await.unwrap();
    proxy.stop().await.unwrap();

    let check = Command::new(binary("keyd-proxy").unwrap())
        .args(["config", "check", "--config"])
        .arg(config)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    let valid = format!("is valid; {listen} to 127.0.0.1:8080, 2 rules");
    assert!(check.status.success() && said.contains(&valid), "{said}");
}

#[tokio::test]
async fn a_stock_agent_attests_with_the_hcl_of_both() {
    a_stock_agent_attests("conf").await;
}

#[tokio::test]
async fn a_stock_agent_attests_with_the_json_of_both() {
    a_stock_agent_attests("json").await;
}

async fn a_stock_agent_attests(language: &str) {
    let line = Line::start(language).await;
    line.give_bundle("etc/spire/bundle.pem").await;
    let name = format!("spire-agent.{language}");
    let changes = [("8081", line.port.to_string()), (PLUGIN, plugin())];
    let config = line.node.install(&name, &name, &changes.each_ref().map(|(from, to)| (*from, to.as_str())));
    let agent = line.node.spire("spire-agent", &config).await;
    line.is_attested("spire-agent").await;
    line.stop(agent).await;
}

#[tokio::test]
async fn keyd_agent_attests_with_its_example() {
    let line = Line::start("conf").await;
    line.give_bundle("etc/keyd/trust-bundle.pem").await;
    let config = line.node.install("agent.toml", "etc/keyd/agent.toml", &[("8081", &line.port.to_string())]);
    let (program, socket) = (binary("keyd-agent").unwrap(), line.node.path("run/keyd-agent/agent.sock"));
    let mut serve = Command::new(&program);
    serve.args(["serve", "--config"]).arg(config);
    let mut agent = Process::spawn(&mut serve, &line.node.path("agent.log")).unwrap();
    agent.listens_on(&socket).await.unwrap();
    let is_attested = async || {
        let status = Command::new(&program).args(["--json", "status", "--socket"]).arg(&socket).output();
        let status = serde_json::from_slice::<Value>(&status.await.unwrap().stdout).unwrap();
        !status["agent"].is_null()
    };
    agent.until("attested", is_attested).await.unwrap();
    line.is_attested("keyd-agent").await;
    line.stop(agent).await;
}
