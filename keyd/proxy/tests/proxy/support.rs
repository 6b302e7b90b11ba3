//! A trust domain, the program under test, a client and a plain server.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keyd_core::{BoxFuture, Failure, Secret, SignInput};
use keyd_softkey::SoftKey;
use keyd_tls::{
    AllowedIds, Bundles, Connector, HandleKey, Handshakes, Identity, Profile, RemoteSigner, Session,
    Settings, TlsError,
};
use keyd_x509::SpiffeId;
use nix::sys::signal::Signal;
use peers::openssl::{self, Issued, Subject};
use peers::process::Process;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::agent::{Agent, certificates};

pub const DOMAIN: &str = "field.example";
pub const PROXY: &str = "spiffe://field.example/web";
pub const CLIENT: &str = "spiffe://field.example/client";
/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A trust domain with an agent, and a plain server that a proxy can be put before.
pub struct World {
    pub dir: TempDir,
    pub root: Issued,
    pub client: Issued,
    pub agent: Agent,
    pub upstream: TcpListener,
}

impl World {
    /// The agent gives the proxy's identity already.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = openssl::issue(dir.path(), &Subject::ca("root", DOMAIN), None).unwrap();
        let client = openssl::issue(dir.path(), &Subject::leaf("client", CLIENT), Some(&root)).unwrap();
        let agent = Agent::start(&dir.path().join("agent.sock"));
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = Self { dir, root, client, agent, upstream };
        world.agent.give(PROXY, &world.issue(&Subject::leaf("proxy", PROXY)), &world.root);
        world
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    pub fn issue(&self, subject: &Subject<'_>) -> Issued {
        openssl::issue(self.dir.path(), subject, Some(&self.root)).unwrap()
    }

    /// Starts the program before `upstream`, with more lines of configuration.
    pub async fn proxy(&self, more: &str) -> Proxy {
        self.proxy_before(self.upstream.local_addr().unwrap(), more).await
    }

    pub async fn proxy_before(&self, upstream: SocketAddr, more: &str) -> Proxy {
        Proxy::start(self, &format!("upstream = \"{upstream}\"\n{more}")).await
    }

    /// A client that shows `own` and wants the proxy.
    pub fn connector(&self, own: &Issued) -> Connector {
        let secret = Secret::new(own.secret().unwrap());
        let chain = certificates(own);
        let algorithm = chain.first().unwrap().public_key().unwrap().algorithm();
        let key = Signer(SoftKey::from_secret(algorithm, &secret).unwrap());
        let key = HandleKey::new(key.0.public_key().clone(), Arc::new(key));
        let mut bundles = Bundles::default();
        bundles.set(DOMAIN.parse().unwrap(), &certificates(&self.root)).unwrap();
        let settings = Settings {
            profile: Profile::PostQuantum,
            identity: watch::channel(Some(Arc::new(Identity::new(&chain, Arc::new(key)).unwrap()))).1,
            bundles: watch::channel(Arc::new(bundles)).1,
            allowed: AllowedIds::from_iter([PROXY.parse::<SpiffeId>().unwrap()]),
            alpn: Vec::new(),
            handshake_timeout: PATIENCE,
        };
        Connector::new(Handshakes::start().unwrap(), settings).unwrap()
    }

    /// Connects as the client that is allowed.
    pub async fn connect(&self, proxy: &Proxy) -> Result<Session<TcpStream>, TlsError> {
        let tcp = TcpStream::connect(&proxy.address).await.unwrap();
        self.connector(&self.client).connect("web.field.example".try_into().unwrap(), tcp).await
    }

    /// The next connection at the plain server.
    pub async fn arrival(&self) -> TcpStream {
        timeout(PATIENCE, self.upstream.accept()).await.expect("in time").unwrap().0
    }
}

struct Signer(SoftKey);

impl RemoteSigner for Signer {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(async { self.0.sign(SignInput::Message(message)) })
    }
}

/// The program under test.
pub struct Proxy {
    pub address: String,
    process: Process,
}

impl Proxy {
    /// Starts it and waits until it tells the service manager that it is ready.
    async fn start(world: &World, more: &str) -> Self {
        let dir = tempfile::tempdir_in(world.dir.path()).unwrap().keep();
        let (config, notify) = (dir.join("proxy.toml"), dir.join("notify"));
        let text = format!(
            "listen = \"127.0.0.1:0\"\nagent_socket = \"{}\"\nallow = [\"{CLIENT}\"]\n{more}\n",
            world.socket().display()
        );
        std::fs::write(&config, text).unwrap();
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut serve = Command::new(env!("CARGO_BIN_EXE_keyd-proxy"));
        serve.args(["serve", "--config"]).arg(&config).env("NOTIFY_SOCKET", &notify);
        let process = Process::spawn(&mut serve, &dir.join("log")).unwrap();
        let state = tokio::task::spawn_blocking(move || {
            let mut buffer = [0; 1024];
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(buffer.get(..length).unwrap()).into_owned()
        });
        let state = state.await.unwrap();
        assert!(state.contains("READY=1"), "{state}");
        let address = state.split("STATUS=listening on ").nth(1).unwrap().split(' ').next().unwrap();
        Self { address: address.to_owned(), process }
    }

    /// Waits until the log holds `text` so many times.
    pub async fn logged(&self, text: &str, times: usize) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let log = self.process.log().unwrap();
            if log.matches(text).count() >= times {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{text:?} is not in the log:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it has so many identities in turn.
    pub async fn has_identity(&self, times: usize) {
        self.logged("identity spiffe_id=", times).await;
    }

    pub fn terminate(&self) {
        self.process.signal(Signal::SIGTERM).unwrap();
    }

    /// Waits for its end; whether that was a good one.
    pub async fn ended(&mut self) -> bool {
        self.process.ended().await.unwrap().success()
    }
}
