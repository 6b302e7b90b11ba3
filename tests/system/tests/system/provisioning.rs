//! A node is prepared at imaging with `keyd-provision`, on a software TPM and tokens in software.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use keyd_attest::Manifest;
use keyd_core::{Algorithm, Protection};
use peers::swtpm::Swtpm;
use peers::token::Token;
use serde_json::Value;
use system::binary;
use system::keyd::{Keyd, write_private};
use tempfile::TempDir;

/// A node on the imaging bench.
struct Node {
    dir: TempDir,
    tpm: Swtpm,
    options: Vec<String>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("node").tempdir().unwrap();
        let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
        for name in ["escrow", "etc", "run", "state"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        let mut node = Self { dir, tpm, options: Vec::new() };
        let users = ["--service-user", "--agent-user", "--admin-user"].map(|o| (o, user.clone()));
        let places = ["etc", "state", "run", "units"]
            .map(|p| (["--", p].concat(), node.path(p).display().to_string()));
        let tcti = node.tpm.tcti();
        node.option("--node", "edge-17").option("--pcrs", "0,7").option("--tcti", &tcti);
        for (option, value) in users {
            node.option(option, &value);
        }
        for (option, value) in places {
            node.option(&option, &value);
        }
        node
    }

    /// A node with a blank token.
    fn with_token(token: impl FnOnce(&Path) -> std::io::Result<Token>) -> Self {
        let mut node = Self::new();
        let token = token(node.dir.path()).unwrap();
        let so_pin = node.path("escrow/so-pin").display().to_string();
        node.option("--module", &token.module.display().to_string()).option("--token-label", token.label);
        node.option("--so-pin-file", &so_pin);
        for (name, value) in &token.environment {
            node.option("--token-environment", &format!("{name}={value}"));
        }
        node
    }

    fn option(&mut self, option: &str, value: &str) -> &mut Self {
        self.options.extend([option.to_owned(), value.to_owned()]);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command =
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../provisioning/keyd-provision"));
        let programs = binary("keyd").unwrap().parent().unwrap().display().to_string();
        command.env("PATH", format!("{programs}:{}", env::var("PATH").unwrap())).stdin(Stdio::null());
        command.env("SYSTEMD_CREDENTIAL_SECRET", self.path("machine-secret"));
        command.args(args).args(&self.options);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The run's report, when it ended with `code`.
    fn report(&self, args: &[&str], code: i32) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    }

    /// The sentence of a run that ended with `code` and did not get as far as a report.
    fn refusal(&self, args: &[&str], code: i32) -> String {
        let output = self.run(&[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["error"]["code"], code);
        error["error"]["message"].as_str().unwrap().to_owned()
    }

    /// Every file but the TPM's, with mode and contents.
    fn files(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut files = BTreeMap::new();
        let mut directories = vec![self.dir.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let (path, kind) = entry.map(|e| (e.path(), e.file_type().unwrap())).unwrap();
                if kind.is_dir() && !path.ends_with("tpm") {
                    directories.push(path);
                } else if kind.is_file() {
                    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                    files.insert(path.clone(), (mode, fs::read(&path).unwrap()));
                }
            }
        }
        files
    }

    fn persistent_handles(&self) -> String {
        let output = self.tpm.tool("tpm2_getcap").arg("handles-persistent").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// keyd on the configuration that was written, as systemd would start it.
    async fn keyd(&self) -> Keyd {
        let socket = self.path("run/keyd/keyd.sock");
        Keyd::on(&self.path("etc/keyd.toml"), socket, &self.path("keyd.log")).await.unwrap()
    }
}

fn items<'a>(report: &'a Value, action: &str) -> Vec<&'a str> {
    let items = report["items"].as_array().unwrap().iter().filter(|i| i["action"] == action);
    items.map(|i| i["item"].as_str().unwrap()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn a_key_of_the_agent_is(node: &Node, protection: Protection) {
    let keyd = node.keyd().await;
    let key = "keyd-agent/svid".parse().unwrap();
    let made = keyd.client().create_key(&key, Algorithm::MlDsa65, None).await.unwrap();
    assert_eq!(made.protection, protection);
    keyd.stop().await.unwrap();
}

#[tokio::test]
async fn a_prepared_node_runs_and_a_second_run_changes_nothing() {
    let node = Node::with_token(Token::blank_kryoptic);
    let first = node.report(&["apply"], 0);
    assert_eq!((&first["verb"], &first["changed"]), (&"apply".into(), &true.into()));
    assert_eq!(items(&first, "create").len(), 6, "{first}");
    node.report(&["verify"], 0);

    let (before, handles) = (node.files(), node.persistent_handles());
    let second = node.report(&["apply"], 0);
    assert_eq!((&second["changed"], items(&second, "keep").len()), (&false.into(), 6), "{second}");
    assert_eq!(node.report(&["plan"], 0)["items"], second["items"]);
    assert_eq!((node.files(), node.persistent_handles()), (before, handles));
    a_key_of_the_agent_is(&node, Protection::Hsm).await;
}

#[tokio::test]
async fn a_token_without_ml_dsa_wraps_and_a_node_without_token_seals() {
    let wrapping = Node::with_token(Token::blank_softhsm);
    wrapping.report(&["apply"], 0);
    a_key_of_the_agent_is(&wrapping, Protection::HsmWrapped).await;

    let sealing = Node::new();
    assert_eq!(items(&sealing.report(&["apply"], 0), "create").len(), 3);
    a_key_of_the_agent_is(&sealing, Protection::TpmSealed).await;
    sealing.report(&["verify"], 0);
}

#[test]
fn a_plan_touches_nothing() {
    let node = Node::with_token(Token::blank_softhsm);
    let (before, handles) = (node.files(), node.persistent_handles());
    let plan = node.report(&["plan"], 0);
    assert_eq!(items(&plan, "create").len(), 6, "{plan}");
    assert_eq!(node.report(&["apply", "--dry-run"], 0), plan);
    assert_eq!((node.files(), node.persistent_handles()), (before, handles));
}

#[test]
fn the_manifest_enrols_this_tpm() {
    let node = Node::new();
    node.report(&["apply"], 0);
    let manifests = Manifest::parse_all("edge-17.json", &node.read("etc/edge-17.json")).unwrap();
    let [manifest] = manifests.as_slice() else { panic!("{} manifests", manifests.len()) };
    assert_eq!((manifest.node.as_str(), manifest.manufacturer.as_str()), ("edge-17", "IBM"));
    assert!(manifest.ek_certificate.is_some());
    let pcrs: Vec<_> = manifest.pcrs.sha256.iter().map(|(index, _)| index).collect();
    assert_eq!(pcrs, [0, 7]);
    assert_eq!(mode(&node.path("etc/edge-17.json")), 0o644);

    let extend =
        node.tpm.tool("tpm2_pcrextend").arg(format!("7:sha256={}", "ab".repeat(32))).status().unwrap();
    assert!(extend.success());
    let verified = node.report(&["verify"], 5);
    assert_eq!(items(&verified, "wrong"), [node.path("etc/edge-17.json").display().to_string()]);
}

#[test]
fn pins_are_private_and_stand_in_no_argument_environment_or_output() {
    let mut node = Node::with_token(Token::blank_kryoptic);
    // Every program that the script may start tells its arguments and environment first.
    let (spies, told) = (node.path("spies"), node.path("told"));
    fs::create_dir(&spies).unwrap();
    let programs = binary("keyd").unwrap().parent().unwrap().to_owned();
    let path = env::join_paths([programs].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap())));
    let path = path.unwrap();
    for name in "cat chmod chown cmp dirname env grep id install keyd mktemp mv od rm sync tr".split(' ') {
        let real = env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.exists()).unwrap();
        let text = format!(
            "#!/bin/bash\n{{ echo \"{name} $*\"; export; }} >>{}\nexec {} \"$@\"\n",
            told.display(),
            real.display()
        );
        fs::write(spies.join(name), text).unwrap();
        fs::set_permissions(spies.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = env::join_paths([spies].into_iter().chain(env::split_paths(&path))).unwrap();
    node.option("--trust-domain", "example.org").option("--server", "127.0.0.1:8081");
    let bundle = node.path("bundle.pem");
    fs::write(&bundle, "-----BEGIN CERTIFICATE-----\n").unwrap();
    node.option("--trust-bundle", &bundle.display().to_string());
    let outputs = ["apply", "apply", "verify"].map(|verb| {
        let output = node.command(&[verb]).env("PATH", &path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        format!("{output:?}")
    });

    let (so_pin, pin) = (node.read("escrow/so-pin"), node.read("etc/hsm-pin"));
    assert!(so_pin.len() == 32 && pin.len() == 32 && so_pin != pin);
    assert_eq!([mode(&node.path("escrow/so-pin")), mode(&node.path("etc/hsm-pin"))], [0o600, 0o600]);
    let told = fs::read_to_string(told).unwrap();
    assert!(told.contains("keyd token init") && told.contains("declare -x PATH"), "{told}");
    for text in outputs.iter().chain([&told, &node.read("etc/keyd.toml")]) {
        assert!(!text.contains(&so_pin) && !text.contains(&pin), "{text}");
    }
}

#[test]
fn another_tpm_is_noticed_and_not_taken() {
    let mut node = Node::new();
    node.report(&["apply"], 0);
    let other = Swtpm::start(&node.path("other/tpm")).unwrap();
    let config = node.read("etc/keyd.toml").replace(&node.tpm.tcti(), &other.tcti());
    fs::write(node.path("etc/keyd.toml"), &config).unwrap();
    node.option("--tcti", &other.tcti());

    let verified = node.report(&["verify"], 5);
    let details: Vec<_> =
        verified["items"].as_array().unwrap().iter().map(|i| i["detail"].to_string()).collect();
    assert!(details.iter().any(|d| d.contains("enrol this node anew")), "{verified}");
    let said = String::from_utf8(node.run(&["verify"]).stdout).unwrap();
    let manifest = said.lines().find(|line| line.contains("edge-17.json")).unwrap();
    assert!(manifest.contains("enrol this node anew") && !said.contains("{\"error\""), "in words: {said}");
    let refused = node.report(&["apply"], 4);
    assert_eq!(refused["changed"], false);
    assert!(refused.to_string().contains("that of another TPM"), "{refused}");
    assert_eq!(node.read("etc/keyd.toml"), config);
    let handles = other.tool("tpm2_getcap").arg("handles-persistent").output().unwrap().stdout;
    assert!(!String::from_utf8(handles).unwrap().contains("0x81000001"), "it is left as it was");
}

#[test]
fn what_an_operator_changed_is_shown_and_replaced_only_by_force() {
    let node = Node::new();
    node.report(&["apply"], 0);
    let (file, written) = (node.path("etc/keyd.toml"), node.read("etc/keyd.toml"));
    let changed = written.replace("tpm-sealed", "software");
    fs::write(&file, &changed).unwrap();

    let output = node.run(&["plan"]);
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("-protections = [\"software\"]\n+protections = [\"tpm-sealed\"]"), "{said}");
    node.report(&["apply"], 4);
    assert_eq!(node.read("etc/keyd.toml"), changed);
    assert_eq!(items(&node.report(&["apply", "--force"], 0), "replace"), [file.display().to_string()]);
    assert_eq!(node.read("etc/keyd.toml"), written);
}

#[test]
fn pins_that_are_there_are_used() {
    let node = Node::with_token(Token::blank_softhsm);
    write_private(&node.path("escrow/so-pin"), "12345678\n").unwrap();
    write_private(&node.path("etc/hsm-pin"), "a PIN with spaces").unwrap();
    let applied = node.report(&["apply"], 0);
    assert!(items(&applied, "create").contains(&"token field-kit"), "{applied}");
    assert_eq!(node.read("etc/hsm-pin"), "a PIN with spaces");
    node.report(&["verify"], 0);
}

#[test]
fn a_token_whose_pin_nobody_knows_is_refused_and_no_pin_is_left() {
    let node = Node::with_token(Token::softhsm);
    let said = node.refusal(&["apply"], 1);
    assert!(said.contains("was initialised before, with a PIN that is not in"), "{said}");
    let files: Vec<_> = node.files().into_keys().collect();
    for place in ["etc", "escrow"] {
        assert!(!files.iter().any(|f| f.starts_with(node.path(place))), "{files:?}");
    }
}

#[test]
fn a_user_pin_as_a_credential_opens_on_this_machine_alone() {
    let node = Node::with_token(Token::blank_softhsm);
    node.report(&["apply", "--pin-credential"], 0);
    let dropin = node.read("units/keyd.service.d/hsm-pin.conf");
    let credential = node.path("etc/hsm-pin.cred");
    assert!(
        dropin.contains(&format!("LoadCredentialEncrypted=hsm-pin:{}", credential.display())),
        "{dropin}"
    );
    assert!(node.read("etc/keyd.toml").contains("pin_credential = \"hsm-pin\""));
    assert!(!node.path("etc/hsm-pin").exists());
    assert_eq!(node.report(&["apply", "--pin-credential"], 0)["changed"], false);
    node.report(&["verify"], 0);

    fs::remove_file(node.path("machine-secret")).unwrap();
    let said = node.refusal(&["verify"], 1);
    assert!(said.contains("does not open on this machine"), "{said}");
}

#[test]
fn everything_that_is_missing_is_told_at_once() {
    let mut node = Node::new();
    node.option("--module", "/nowhere/module.so").option("--so-pin-file", "/nowhere/so-pin");
    node.option("--tcti", "device:/dev/no-such-tpm").option("--agent-user", "no-such-user");
    let said = node.refusal(&["apply"], 3);
    for missing in ["/nowhere/module.so", "/nowhere/so-pin", "/dev/no-such-tpm", "no-such-user"] {
        assert!(said.contains(missing), "{missing}: {said}");
    }
    assert!(node.files().is_empty());
}

#[test]
fn wrong_usage_is_told() {
    let node = Node::new();
    for (args, sentence) in [
        (&["aply"][..], "aply is none of the verbs"),
        (&["apply", "--module", "/m"], "--so-pin-file"),
        (&["apply", "--server", "s"], "belong together"),
        (&["apply", "--token-label", "a\"b"], "have no place"),
        (&["apply", "--node", "a/b"], "--node: a name has"),
        (&["apply", "--etc", "etc"], "--etc etc: give an absolute path"),
        (&["apply", "--token-environment", "A"], "A is not NAME=VALUE"),
    ] {
        let mut command = Command::new(node.command(&[]).get_program());
        let output = command.args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(sentence), "{output:?}");
    }
}
