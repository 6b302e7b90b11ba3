//! A plugin as go-plugin runs it, without SPIRE around it.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use keyd_api::unix_channel;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plugin_sdk::proto::config::config_client::ConfigClient;
use plugin_sdk::proto::config::{ConfigureRequest, CoreConfiguration};
use plugin_sdk::proto::goplugin::Empty;
use plugin_sdk::proto::goplugin::grpc_controller_client::GrpcControllerClient;
use plugin_sdk::proto::init::InitRequest;
use plugin_sdk::proto::init::init_client::InitClient;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use crate::{DOMAIN, PLUGIN};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Plugin {
    child: Child,
    stdout: BufReader<ChildStdout>,
    socket: PathBuf,
    pub channel: Channel,
}

impl Plugin {
    pub async fn start(kind: &str, tmp: &Path) -> Self {
        let mut child = Command::new(PLUGIN)
            .env(kind, kind)
            .env("TMPDIR", tmp)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        timeout(PATIENCE, stdout.read_line(&mut line)).await.unwrap().unwrap();
        let fields: Vec<&str> = line.trim_end_matches('\n').split('|').collect();
        let &["1", "1", "unix", socket, "grpc", ""] = fields.as_slice() else { panic!("handshake {line:?}") };
        Self { child, stdout, socket: socket.into(), channel: unix_channel(socket) }
    }

    pub async fn init(&self, host_services: &[&str]) -> Vec<String> {
        let host_service_names = host_services.iter().map(ToString::to_string).collect();
        let mut client = InitClient::new(self.channel.clone());
        client.init(InitRequest { host_service_names }).await.unwrap().into_inner().plugin_service_names
    }

    pub async fn configure(&self, hcl: &str) -> Result<(), Status> {
        let request = ConfigureRequest {
            core_configuration: Some(CoreConfiguration { trust_domain: DOMAIN.to_owned() }),
            hcl_configuration: hcl.to_owned(),
        };
        ConfigClient::new(self.channel.clone()).configure(request).await.map(drop)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Ends it; what it printed after the handshake, and whether its socket is gone.
    pub async fn shut_down(mut self) -> (ExitStatus, String, bool) {
        GrpcControllerClient::new(self.channel).shutdown(Empty {}).await.unwrap();
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).await.unwrap();
        (status, rest, !self.socket.parent().unwrap().exists())
    }
}

#[tokio::test]
async fn a_plugin_lives_until_shutdown_and_leaves_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let plugin = Plugin::start("KeyManager", tmp.path()).await;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        plugin.signal(signal);
    }
    assert_eq!(
        plugin.init(&["spire.hostservice.common.metrics.v1.Metrics"]).await,
        ["spire.plugin.agent.keymanager.v1.KeyManager", "spire.service.common.config.v1.Config"],
        "it still serves"
    );
    let (status, printed, gone) = plugin.shut_down().await;
    assert!(status.success() && gone, "{status} {gone}");
    assert_eq!(printed, "", "stdout carries the handshake alone");
}

#[tokio::test]
async fn without_spire_it_says_what_it_is() {
    let run = async |args: &[&str]| {
        let output = timeout(PATIENCE, Command::new(PLUGIN).args(args).output()).await.unwrap().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
        (output.status.success(), out, err)
    };
    let (mistaken, out, words) = run(&[]).await;
    assert!(!mistaken && out.is_empty());
    assert!(words.starts_with("keyd-spire-plugin is a plugin of SPIRE"), "{words}");
    assert!(words.contains("x509_ca_algorithm"), "{words}");
    assert_eq!(run(&["--help"]).await, (true, words, String::new()));
}
