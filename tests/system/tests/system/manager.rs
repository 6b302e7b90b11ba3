//! keyd as systemd runs it: readiness, watchdog, reload, a socket that is handed over, and an orderly end.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use keyd_api::Client;
use keyd_core::{Algorithm, Protection, Reason, SignInput};
use nix::sys::signal::Signal;
use peers::process::Process;
use system::binary;
use system::keyd::{Keyd, configure, namespaces, serve};
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

/// How long systemd waits for a ping, in these tests.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long anything else may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// A keyd whose notifications come to the test.
struct Watched {
    dir: TempDir,
    config: PathBuf,
    process: Process,
    manager: UnixDatagram,
}

impl Watched {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = configure(dir.path(), &soft(&["dev"])).unwrap();
        let notify = dir.path().join("notify");
        let manager = UnixDatagram::bind(&notify).unwrap();
        let mut serve = serve(&config).unwrap();
        serve.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", PATIENCE.as_micros().to_string());
        let process = Process::spawn(&mut serve, &dir.path().join("keyd.log")).unwrap();
        let watched = Self { dir, config, process, manager };
        assert_eq!(watched.told(LONG).await.as_deref(), Some("READY=1"));
        watched
    }

    /// The next notification that arrives within `patience`.
    async fn told(&self, patience: Duration) -> Option<String> {
        let mut bytes = [0; 4096];
        let received = timeout(patience, self.manager.recv(&mut bytes)).await.ok()?.unwrap();
        Some(String::from_utf8(bytes[..received].to_vec()).unwrap().trim_end().to_owned())
    }

    /// The next notification but pings.
    async fn told_beside_pings(&self) -> String {
        loop {
            let told = self.told(LONG).await.unwrap();
            if told != "WATCHDOG=1" {
                return told;
            }
        }
    }

    async fn reload(&self, config: &str) {
        configure(self.dir.path(), config).unwrap();
        self.process.signal(Signal::SIGHUP).unwrap();
        let reloading = self.told_beside_pings().await;
        assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
        assert_eq!(self.told_beside_pings().await, "READY=1");
    }

    async fn stop(mut self) -> ExitStatus {
        self.process.signal(Signal::SIGTERM).unwrap();
        assert_eq!(self.told_beside_pings().await, "STOPPING=1");
        self.process.ended().await.unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("keyd.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    fn log(&self) -> String {
        self.process.log().unwrap()
    }
}

fn soft(names: &[&str]) -> String {
    let tables: Vec<(&str, &[Protection])> =
        names.iter().map(|name| (*name, &[Protection::Software][..])).collect();
    namespaces(&tables)
}

async fn create(client: &Client, key: &str) -> Result<(), Reason> {
    let made = client.create_key(&key.parse().unwrap(), Algorithm::EcP256, None).await;
    made.map(drop).map_err(|failure| failure.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_told_for_as_long_as_keyd_answers_over_its_socket() {
    let keyd = Watched::start().await;
    for _ in 0..4 {
        let start = Instant::now();
        assert_eq!(keyd.told(PATIENCE).await.as_deref(), Some("WATCHDOG=1"));
        assert!(start.elapsed() < PATIENCE, "in time");
    }
    // Nobody can reach a keyd whose socket is gone, though its process is in the best of health.
    let away = keyd.dir.path().join("away");
    std::fs::rename(keyd.socket(), &away).unwrap();
    while keyd.told(PATIENCE).await.is_some() {}
    assert!(keyd.log().contains("keyd does not answer itself"), "{}", keyd.log());
    std::fs::rename(&away, keyd.socket()).unwrap();
    assert_eq!(keyd.told(PATIENCE).await.as_deref(), Some("WATCHDOG=1"), "it is well again");
    assert!(keyd.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_brings_namespaces_and_grants_and_names_what_takes_a_restart() {
    let keyd = Watched::start().await;
    let client = keyd.client();
    create(&client, "dev/a").await.unwrap();
    assert_eq!(create(&client, "new/a").await, Err(Reason::UnknownNamespace));

    keyd.reload(&soft(&["dev", "new"])).await;
    create(&client, "new/a").await.unwrap();
    assert_eq!(client.status().await.unwrap().namespaces.len(), 2);

    // A file that is wrong changes nothing.
    keyd.reload("namespace = 7\n").await;
    create(&client, "new/b").await.unwrap();
    let log = keyd.log();
    assert!(log.contains("not reloaded") && log.contains(&keyd.config.display().to_string()), "{log}");

    // What takes a restart waits, and the rest counts.
    keyd.reload(&("[limits]\nkeys = 1\n".to_owned() + &soft(&["dev"]))).await;
    create(&client, "dev/b").await.unwrap();
    assert_eq!(create(&client, "new/c").await, Err(Reason::UnknownNamespace));
    let log = keyd.log();
    assert!(log.contains("take a restart") && log.contains("[limits]"), "{log}");
    assert!(log.contains("namespace=new") && log.contains("keys=2"), "{log}");

    // The keys of a namespace that left are there again once it is back.
    keyd.reload(&soft(&["dev", "new"])).await;
    assert_eq!(client.list_keys(None).await.unwrap().len(), 4);
    assert!(keyd.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reload_is_in_the_audit_log_and_a_refused_one_changes_nothing() {
    let keyd = Watched::start().await;
    let client = keyd.client();
    create(&client, "dev/ec").await.unwrap();
    let with_new = soft(&["dev", "new"]);
    let user = format!("users = [{}]", nix::unistd::geteuid());
    let digests = "[[issuance]]\nkeys = [\"dev/ec\"]\ntrust_domain = \"td\"\nown = { lifetime = \"1day\" }\n";
    let changes = [
        (with_new.clone(), "ok"),
        ("namespace = 7\n".to_owned(), "BAD_CONFIG"),
        (soft(&["dev"]).replace(&user, "users = [\"nobody-of-this-name\"]"), "BAD_CONFIG"),
        (format!("{}{digests}", soft(&["dev"])), "BAD_CONFIG"),
        (format!("[escrow]\nrecipient = \"/nonexistent\"\n{}", soft(&["dev"])), "BAD_CONFIG"),
    ];
    for (number, (config, _)) in changes.iter().enumerate() {
        keyd.reload(config).await;
        create(&client, &format!("new/{number}")).await.unwrap();
    }
    assert!(keyd.log().contains("names dev/ec, and only ML-DSA keys"), "{}", keyd.log());

    // Nor does one that cannot be recorded.
    let log = keyd.dir.path().join("state/audit");
    let written = std::fs::metadata(log.join("audit-000000000001.log")).unwrap().len();
    keyd.process.limit_files(Some(written)).await.unwrap();
    keyd.reload(&soft(&["dev"])).await;
    client.sign(&"new/0".parse().unwrap(), SignInput::Message(b"m")).await.unwrap();
    keyd.process.limit_files(None).await.unwrap();
    keyd.reload(&soft(&["dev"])).await;
    assert_eq!(create(&client, "new/last").await, Err(Reason::UnknownNamespace));

    let show = ["--json", "audit", "show", "--event", "policy-reloaded", "--file"];
    let shown = Command::new(binary("keyd").unwrap()).args(show).arg(&log).output().await.unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let results: Vec<_> = shown["records"].as_array().unwrap().iter().map(|r| &r["result"]).collect();
    let expected = changes.iter().map(|(_, result)| *result).chain(["AUDIT_FAILED", "ok"]);
    assert_eq!(results, expected.collect::<Vec<_>>());
    assert!(keyd.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_systemd_hands_over_is_served_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = configure(dir.path(), &soft(&["dev"])).unwrap();
    let handed = dir.path().join("handed.sock");
    let mut activate = Command::new("systemd-socket-activate");
    activate
        .arg("--listen")
        .arg(&handed)
        .arg(binary("keyd").unwrap())
        .args(["serve", "--config"])
        .arg(&config);
    let mut process = Process::spawn(&mut activate, &dir.path().join("keyd.log")).unwrap();
    process.until("listening", async || handed.exists()).await.unwrap();
    // The first connection starts keyd.
    create(&Client::new(&handed), "dev/a").await.unwrap();
    assert!(!dir.path().join("keyd.sock").exists(), "it made no socket of its own");
    process.stop().await.unwrap();
    assert!(handed.exists(), "the socket is systemd's to remove");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_leaves_nothing_to_mend_and_a_kill_does() {
    /// What keyd says of a store that an earlier keyd did not close.
    const MENDED: &str = "the store was not closed in order";
    let dir = tempfile::tempdir().unwrap();
    let log = |dir: &Path| std::fs::read_to_string(dir.join("keyd.log")).unwrap();
    let keyd = Keyd::start(dir.path(), &soft(&["dev"])).await.unwrap();
    create(&keyd.client(), "dev/a").await.unwrap();
    keyd.stop().await.unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    assert!(!log(dir.path()).contains(MENDED), "{}", log(dir.path()));
    create(&keyd.client(), "dev/b").await.unwrap();
    keyd.kill().await.unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    assert!(log(dir.path()).contains(MENDED), "{}", log(dir.path()));
    assert_eq!(keyd.client().list_keys(None).await.unwrap().len(), 2);
}
