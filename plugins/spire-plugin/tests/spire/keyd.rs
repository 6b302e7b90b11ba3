//! The real keyd, with software keys, which can be killed and brought back while SPIRE runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use keyd_api::Client;
use keyd_core::Algorithm;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use crate::PLUGIN;

/// How long a start may take.
const START: Duration = Duration::from_secs(20);

pub struct Keyd {
    dir: PathBuf,
    process: Option<Child>,
}

impl Keyd {
    pub async fn start(dir: &Path) -> Self {
        Self::start_with(dir, "").await
    }

    /// With more in its configuration, such as a `[tpm]` table.
    pub async fn start_with(dir: &Path, more: &str) -> Self {
        let uid = nix::unistd::getuid();
        let config = format!(
            r#"
socket = "{dir}/keyd.sock"
state_dir = "{dir}/keyd"
{more}
{namespaces}
[[allow]]
users = [{uid}]
namespaces = ["spire-server", "spire-agent", "spire", "spire-root"]
operations = ["create", "list", "show", "sign", "rotate", "attest", "bind", "status"]
"#,
            dir = dir.display(),
            namespaces = ["spire-server", "spire-agent", "spire", "spire-root"]
                .map(|n| format!("[[namespace]]\nname = \"{n}\"\nprotections = [\"software\"]\n"))
                .concat(),
        );
        std::fs::write(dir.join("keyd.toml"), config).unwrap();
        let mut keyd = Self { dir: dir.to_owned(), process: None };
        keyd.come_back().await;
        keyd
    }

    pub fn socket(&self) -> String {
        self.dir.join("keyd.sock").display().to_string()
    }

    /// SIGKILL.
    pub async fn go_away(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }

    /// Starts again, with the keys it had.
    pub async fn come_back(&mut self) {
        let log = std::fs::File::create(self.dir.join("keyd.log")).unwrap();
        let mut command = Command::new(binary().await);
        command.arg("serve").arg("--config").arg(self.dir.join("keyd.toml")).stderr(log).kill_on_drop(true);
        self.process = Some(command.spawn().unwrap());
        let deadline = Instant::now() + START;
        while let Err(failure) = self.client().status().await {
            let log = std::fs::read_to_string(self.dir.join("keyd.log")).unwrap();
            assert!(Instant::now() < deadline, "{failure}:\n{log}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The keys of a namespace and their algorithms.
    pub async fn algorithms(&self, namespace: &str) -> BTreeMap<String, Algorithm> {
        let keys = self.client().list_keys(Some(&namespace.parse().unwrap())).await.unwrap();
        keys.into_iter().map(|key| (key.key.name.to_string(), key.algorithm)).collect()
    }

    /// `keyd ca init` with a certificate of ten days; the file that holds it.
    pub async fn root(&self, trust_domain: &str) -> PathBuf {
        let file = self.dir.join("root.pem");
        let out = file.to_str().unwrap();
        self.command(&["ca", "init", "--days", "10", "--trust-domain", trust_domain, "--out", out]).await;
        file
    }

    /// A new root key in place of the one that is certified.
    pub async fn rotate_root(&self) {
        self.client().rotate_key(&"spire-root/root".parse().unwrap(), None, None).await.unwrap();
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// What an operator's command prints.
    pub async fn command(&self, args: &[&str]) -> String {
        let mut command = Command::new(binary().await);
        command.arg("--socket").arg(self.socket()).args(args).stdin(Stdio::null());
        let output = timeout(START, command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The daemon beside the plugin. Cargo builds the binaries of a test's own package alone, and an old one must not pass
/// for the new, so it is built here.
async fn binary() -> &'static Path {
    static BINARY: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async || {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "keyd-daemon"]).stdin(Stdio::null());
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().await.unwrap().success(), "keyd does not build");
        Path::new(PLUGIN).with_file_name("keyd")
    };
    BINARY.get_or_init(build).await
}
