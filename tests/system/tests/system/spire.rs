//! The unmodified spire-server on keyd, when something beneath it dies.
//!
//! Its CA key is an ML-DSA-65 key in the token, under a root whose key, ML-DSA-87, is there too.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fault_shim::{Action, Fault, Faults};
use keyd_core::{Algorithm, Protection};
use keyd_softkey::SoftKey;
use keyd_x509::{Certificate, parse_pem_chain, request};
use nix::sys::signal::{Signal, kill};
use peers::spire::{ServerConfig, SpireServer};
use peers::token::Token;
use system::issuance::profiles;
use system::keyd::{Keyd, namespaces, token_with_pin};
use system::minter::{Local, Minter};
use system::openssl::verify_chain;
use system::spire::server_plugins;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::faults::behind_the_shim;

const TRUST_DOMAIN: &str = "system.example";
const WORKLOAD: &str = "spiffe://system.example/workload";
/// Clients that mint at once.
const CLIENTS: usize = 4;
/// How long SPIRE waits for a plugin.
const SPIRE_WAITS: Duration = Duration::from_secs(30);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

#[tokio::test(flavor = "multi_thread")]
async fn no_mint_fails_when_keyd_is_killed_and_back_within_seconds() {
    /// Between the kill and the start.
    const AWAY: Duration = Duration::from_secs(2);
    let site = Site::new().await;
    let mut keyd = site.keyd().await;
    let server = site.server().await;
    let load = Load::start(&site).await;
    for _ in 0..2 {
        load.goes_on().await;
        keyd.kill().await.unwrap();
        sleep(AWAY).await;
        keyd = site.keyd().await;
    }
    load.goes_on().await;
    let slowest = load.stop().await;
    assert!((AWAY / 2..SPIRE_WAITS).contains(&slowest), "a mint waited for keyd: {slowest:?}");
    site.issues_ml_dsa(&server).await;
    server.stop().await.unwrap();
    keyd.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mint_fails_when_the_token_worker_is_killed() {
    let site = Site::new().await;
    let keyd = site.keyd().await;
    let server = site.server().await;
    let load = Load::start(&site).await;
    let mut killed = Vec::new();
    for _ in 0..3 {
        // A worker that dies twice under one call fails it, so each client gets past the last one's end.
        load.goes_on().await;
        let worker = keyd.worker().unwrap();
        assert!(!killed.contains(&worker), "another worker serves");
        kill(worker, Signal::SIGKILL).unwrap();
        killed.push(worker);
    }
    load.goes_on().await;
    let slowest = load.stop().await;
    assert!(slowest < SPIRE_WAITS / 3, "a worker is soon replaced: {slowest:?}");
    site.issues_ml_dsa(&server).await;
    server.stop().await.unwrap();
    keyd.stop().await.unwrap();
}

/// Calls and their repetitions meet a crash, so that keyd refuses them for now.
#[tokio::test(flavor = "multi_thread")]
async fn no_mint_fails_when_the_tokens_module_crashes_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::new(&dir.path().join("faults")).unwrap();
    let site = Site::on(dir, |token| behind_the_shim(token, &faults)).await;
    let keyd = site.keyd().await;
    let server = site.server().await;
    let load = Load::start(&site).await;
    for _ in 0..2 {
        load.goes_on().await;
        let crashes = Fault { times: 4, ..Fault::always(Action::Abort) };
        faults.inject("C_Sign", crashes).unwrap();
        while faults.calls("C_Sign").unwrap() <= crashes.times {
            sleep(PAUSE).await;
        }
    }
    load.goes_on().await;
    let slowest = load.stop().await;
    assert!(slowest < SPIRE_WAITS, "{slowest:?}");
    site.issues_ml_dsa(&server).await;
    server.stop().await.unwrap();
    keyd.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_keeps_root_and_jwt_key_and_gets_a_new_intermediate() {
    let site = Site::new().await;
    let keyd = site.keyd().await;
    let server = site.server().await;
    let before = Seen::of(&site, &server).await;
    server.stop().await.unwrap();
    keyd.stop().await.unwrap();

    let keyd = site.keyd().await;
    let server = site.server().await;
    let log = server.process.log().unwrap();
    let loads: Vec<_> = log.lines().filter(|line| line.contains("jwt_keys=")).collect();
    assert_eq!(loads.len(), 2, "{loads:?}");
    assert!(loads[0].contains("jwt_keys=0") && loads[1].contains("jwt_keys=1"), "{loads:?}");
    let after = Seen::of(&site, &server).await;
    assert_eq!(after.root, before.root);
    assert_ne!(after.intermediate, before.intermediate);
    assert_eq!(after.jwt_header, before.jwt_header, "the same key signs, by its id");
    verify_chain(&before.svid, &after.bundle).await.expect("what was issued before still verifies");
    server.stop().await.unwrap();
    keyd.stop().await.unwrap();
}

/// A directory with a token, keyd's configuration and the root's certificate.
struct Site {
    dir: TempDir,
    spire: ServerConfig,
}

impl Site {
    async fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap(), |token| token).await
    }

    /// On a token as `seen` has it.
    async fn on(dir: TempDir, seen: impl FnOnce(Token) -> Token) -> Self {
        let token = seen(Token::kryoptic(dir.path()).unwrap());
        let hsm = &[Protection::Hsm][..];
        let config = token_with_pin(&token, dir.path()).unwrap()
            + &namespaces(&[("spire-server", hsm), ("spire-root", hsm)])
            + &profiles(TRUST_DOMAIN);
        let keyd = Keyd::start(dir.path(), &config).await.unwrap();
        let root = dir.path().join("root.pem");
        let out = root.to_str().unwrap();
        keyd.json(&["ca", "init", "--trust-domain", TRUST_DOMAIN, "--out", out]).await.unwrap();
        let spire = ServerConfig::hcl(TRUST_DOMAIN, server_plugins(&keyd.socket(), &root).unwrap()).unwrap();
        keyd.stop().await.unwrap();
        Self { dir, spire }
    }

    async fn keyd(&self) -> Keyd {
        Keyd::restart(self.dir.path()).await.unwrap()
    }

    fn spire_dir(&self) -> PathBuf {
        self.dir.path().join("spire")
    }

    async fn server(&self) -> SpireServer {
        SpireServer::start(&self.spire_dir(), &self.spire).await.unwrap()
    }

    /// Whether what the server issues is signed as it should be, in OpenSSL's words.
    async fn issues_ml_dsa(&self, server: &SpireServer) {
        let minted = server.mint(WORKLOAD).await.unwrap();
        assert_eq!(verify_chain(&minted.svid, &minted.bundle).await.unwrap(), ["ML-DSA-65", "ML-DSA-87"]);
    }
}

/// What a server shows of its keys.
struct Seen {
    root: Vec<Certificate>,
    intermediate: Certificate,
    /// Names the key.
    jwt_header: String,
    svid: PathBuf,
    bundle: PathBuf,
}

impl Seen {
    async fn of(site: &Site, server: &SpireServer) -> Self {
        site.issues_ml_dsa(server).await;
        let minted = server.mint(WORKLOAD).await.unwrap();
        let read = |file: &PathBuf| parse_pem_chain("PEM", &std::fs::read(file).unwrap()).unwrap();
        let [_, intermediate] = read(&minted.svid).try_into().unwrap();
        let jwt = server.command(&["jwt", "mint", "-spiffeID", WORKLOAD, "-audience", "peer"]).await.unwrap();
        let jwt_header = jwt.split_once('.').unwrap().0.to_owned();
        let root = read(&minted.bundle);
        assert_eq!(root.len(), 1);
        Self { root, intermediate, jwt_header, svid: minted.svid, bundle: minted.bundle }
    }
}

/// Clients that mint one SVID after another. None may fail.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<[AtomicUsize; CLIENTS]>,
    clients: JoinSet<Duration>,
}

impl Load {
    async fn start(site: &Site) -> Self {
        let key =
            SoftKey::from_secret(Algorithm::EcP256, &SoftKey::generate_secret(Algorithm::EcP256).unwrap());
        let csr = request(&Local(key.unwrap()), Some(&WORKLOAD.parse().unwrap())).await.unwrap();
        let (stop, done): (Arc<AtomicBool>, Arc<[AtomicUsize; CLIENTS]>) = Default::default();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (stop, done, csr) = (stop.clone(), done.clone(), csr.clone());
            let minter = Minter::new(&site.spire_dir());
            clients.spawn(async move {
                let mut slowest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let chain = minter.mint(&csr).await.unwrap();
                    slowest = slowest.max(start.elapsed());
                    assert_eq!(chain[0].leaf_spiffe_id().unwrap().to_string(), WORKLOAD);
                    done[number].fetch_add(1, Ordering::Relaxed);
                }
                slowest
            });
        }
        Self { stop, done, clients }
    }

    /// Waits until each client has minted 20 more.
    async fn goes_on(&self) {
        let counts = || self.done.each_ref().map(|count| count.load(Ordering::Relaxed));
        let (start, before) = (Instant::now(), counts());
        while counts().iter().zip(before).any(|(now, before)| *now < before + 20) {
            assert!(
                start.elapsed() < SPIRE_WAITS,
                "a client is stuck or has failed: {before:?}, {:?}",
                counts()
            );
            sleep(PAUSE).await;
        }
    }

    /// Ends the clients; the longest that a mint took.
    async fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().max().unwrap()
    }
}
