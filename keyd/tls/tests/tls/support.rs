//! A trust domain issued by OpenSSL, our side of links within it, and OpenSSL at the other end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyd_core::{BoxFuture, Failure, Secret, SignInput};
use keyd_softkey::SoftKey;
use keyd_tls::{
    Acceptor, AllowedIds, Bundles, Connector, HandleKey, Handshakes, Identity, Profile, RemoteSigner,
    Settings, TlsError,
};
use keyd_x509::{Certificate, SpiffeId, parse_pem_chain};
use peers::openssl::{self, Issued, Subject};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;

pub const DOMAIN: &str = "field.example";
pub const SERVER: &str = "spiffe://field.example/server";
pub const CLIENT: &str = "spiffe://field.example/client";
/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with a root, a server's and a client's certificate.
pub struct World {
    pub dir: TempDir,
    pub root: Issued,
    pub server: Issued,
    pub client: Issued,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = openssl::issue(dir.path(), &Subject::ca("root", DOMAIN), None).unwrap();
        let leaf = |name, id| openssl::issue(dir.path(), &Subject::leaf(name, id), Some(&root)).unwrap();
        let (server, client) = (leaf("server", SERVER), leaf("client", CLIENT));
        Self { dir, root, server, client }
    }

    pub fn issue(&self, subject: &Subject<'_>) -> Issued {
        self.issue_under(subject, &self.root)
    }

    pub fn issue_under(&self, subject: &Subject<'_>, issuer: &Issued) -> Issued {
        openssl::issue(self.dir.path(), subject, Some(issuer)).unwrap()
    }

    /// Settings that show `own`, believe the root and let `peer` in.
    pub fn settings(&self, own: &Issued, peer: &str) -> Settings {
        Settings {
            profile: Profile::PostQuantum,
            identity: watch::channel(Some(identity(own))).1,
            bundles: watch::channel(bundles(DOMAIN, &self.root)).1,
            allowed: AllowedIds::from_iter([peer.parse::<SpiffeId>().unwrap()]),
            alpn: Vec::new(),
            handshake_timeout: PATIENCE,
        }
    }

    pub fn server_settings(&self) -> Settings {
        self.settings(&self.server, CLIENT)
    }

    pub fn client_settings(&self) -> Settings {
        self.settings(&self.client, SERVER)
    }
}

pub fn acceptor(settings: Settings) -> Acceptor {
    Acceptor::new(Handshakes::start().unwrap(), settings).unwrap()
}

pub fn connector(settings: Settings) -> Connector {
    Connector::new(Handshakes::start().unwrap(), settings).unwrap()
}

pub fn bundles(trust_domain: &str, root: &Issued) -> Arc<Bundles> {
    let mut bundles = Bundles::default();
    bundles.set(trust_domain.parse().unwrap(), &certificates(&root.certificate)).unwrap();
    Arc::new(bundles)
}

pub fn certificates(pem: &Path) -> Vec<Certificate> {
    parse_pem_chain("test", &std::fs::read(pem).unwrap()).unwrap()
}

/// An identity whose key signs through [`HandleKey`], and so from another thread.
pub fn identity(issued: &Issued) -> Arc<Identity> {
    let signer = Signer(soft_key(issued));
    let key = HandleKey::new(signer.0.public_key().clone(), Arc::new(signer));
    Arc::new(Identity::new(&certificates(&issued.certificate), Arc::new(key)).unwrap())
}

pub struct Signer(pub SoftKey);

impl RemoteSigner for Signer {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.0.sign(SignInput::Message(message))
        })
    }
}

/// The private key of an issued certificate.
pub fn soft_key(issued: &Issued) -> SoftKey {
    let public = certificates(&issued.certificate)[0].public_key().unwrap();
    SoftKey::from_secret(public.algorithm(), &Secret::new(issued.secret().unwrap())).unwrap()
}

/// What one `openssl s_client` saw, and what our side made of it.
pub struct Visit {
    pub ours: Result<SpiffeId, TlsError>,
    pub theirs: String,
}

impl Visit {
    /// The sentence of the refusal.
    pub fn refusal(&self) -> String {
        match &self.ours {
            Err(TlsError::Refused(refusal)) => refusal.to_string(),
            other => panic!("{other:?}; openssl: {}", self.theirs),
        }
    }
}

/// Lets `openssl s_client` in once, with these arguments, and echoes one line.
pub async fn visit(acceptor: &Acceptor, arguments: &str) -> Visit {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client =
        openssl::spawn(&format!("s_client -connect 127.0.0.1:{port} -ign_eof {arguments}")).unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(b"over and out\n").await.unwrap();
    let output = tokio::spawn(tokio::time::timeout(PATIENCE, client.wait_with_output()));
    let (tcp, _) = listener.accept().await.unwrap();
    let ours = match acceptor.accept(tcp).await {
        Ok(session) => {
            let mut stream = BufReader::new(session.stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            stream.write_all(format!("heard: {line}").as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            Ok(session.peer)
        }
        Err(error) => Err(error),
    };
    drop((listener, stdin));
    let output = output.await.unwrap().expect("in time").unwrap();
    let theirs = [output.stdout, output.stderr].concat();
    Visit { ours, theirs: String::from_utf8_lossy(&theirs).into_owned() }
}

/// `openssl s_server` that answers each line reversed.
pub struct Server {
    pub address: String,
    _child: Child,
    _stdout: BufReader<ChildStdout>,
}

pub async fn serve(arguments: &str) -> Server {
    let mut child = openssl::spawn(&format!("s_server -accept 127.0.0.1:0 -rev {arguments}")).unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    loop {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("in time");
        if read.unwrap() == 0 {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
            panic!("s_server: {said}");
        }
        if let Some(address) = line.trim().strip_prefix("ACCEPT ") {
            return Server { address: address.to_owned(), _child: child, _stdout: stdout };
        }
    }
}

/// `-cert` and `-key` of an issued certificate.
pub fn showing(issued: &Issued) -> String {
    format!("-cert {} -key {}", issued.certificate.display(), issued.key.display())
}

/// Arguments that believe this root and fail on anything else.
pub fn believing(root: &Issued) -> String {
    format!("-CAfile {} -verify_return_error", root.certificate.display())
}
