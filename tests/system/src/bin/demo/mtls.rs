//! keyd-proxy before a plain server, and OpenSSL as the foreign client.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use peers::process::Process;
use system::binary;
use system::openssl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::line::TRUST_DOMAIN;
use crate::node::{Node, Svids};

/// What the plain server says.
const GREETING: &str = "hello from a server that knows no TLS";
/// How long a handshake and its request may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Keeps the client's SVID for whoever looks, and has OpenSSL verify it.
pub async fn keep_svid(svids: &Svids, out: &Path) -> Result<String> {
    let n = svids.number("client")?;
    let (svid, bundle) = (out.join("svid.pem"), out.join("bundle.pem"));
    fs::copy(svids.dir.join(format!("svid.{n}.pem")), &svid)?;
    fs::copy(svids.dir.join(format!("bundle.{n}.pem")), &bundle)?;
    let leaf = keyd_x509::parse_pem_chain("svid.pem", &fs::read(&svid)?)?.swap_remove(0);
    let signatures = openssl::verify_chain(&svid, &bundle).await?;
    ensure!(signatures.iter().all(|s| s.starts_with("ML-DSA")), "signatures are {signatures:?}");
    let key = leaf.public_key()?.algorithm();
    Ok(format!(
        "{}: key {key}, chain signed by {}; OpenSSL verifies it",
        svids.ids[n],
        signatures.join(" and ")
    ))
}

/// A plain server, keyd-proxy before it, and the identities of its callers.
pub struct Front {
    proxy: Process,
    plain: JoinHandle<()>,
    address: SocketAddr,
    svids: Svids,
}

impl Front {
    /// Starts both; the proxy lets `/client` in and nobody else.
    pub async fn start(dir: &Path, node: &Node) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let upstream = listener.local_addr()?;
        let plain = tokio::spawn(plain_server(listener));
        let address = SocketAddr::from(([127, 0, 0, 1], peers::spire::free_port()?));
        let config = dir.join("proxy.toml");
        let agent_socket = node.agent_socket();
        fs::write(
            &config,
            format!(
                "listen = \"{address}\"\nupstream = \"{upstream}\"\nagent_socket = {agent_socket:?}\n\
                 spiffe_id = \"spiffe://{TRUST_DOMAIN}/web\"\nallow = [\"spiffe://{TRUST_DOMAIN}/client\"]\n"
            ),
        )?;
        let mut serve = Command::new(binary("keyd-proxy")?);
        serve.args(["serve", "--config"]).arg(config);
        let proxy = Process::spawn(&mut serve, &dir.join("proxy.log"))?;
        let svids = node.fetch_svids(3).await?;
        let front = Self { proxy, plain, address, svids };
        front.wait().await?;
        Ok(front)
    }

    /// The handshake whose words are kept.
    pub async fn handshake(&self, out: &Path) -> Result<String> {
        let words = self.call("client").await?;
        fs::write(out.join("handshake.txt"), &words)?;
        ensure!(words.contains(GREETING), "the plain server did not answer:\n{words}");
        let group = after(&words, "Negotiated TLS1.3 group: ").context("no group was negotiated")?;
        let signature = after(&words, "Peer signature type: ").context("the server signed nothing")?;
        ensure!(group == "X25519MLKEM768", "negotiated {group}");
        ensure!(signature.to_lowercase().contains("mldsa65"), "the server signed with {signature}");
        Ok(format!(
            "OpenSSL's s_client got through keyd-proxy; group {group}, server's signature {signature}"
        ))
    }

    /// One more handshake and request.
    pub async fn served_again(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let words = self.call("client").await?;
            if words.contains(GREETING) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("no longer served:\n{words}\n{}", self.proxy.log()?);
            }
            sleep(PAUSE).await;
        }
    }

    /// Stops both.
    pub async fn stop(self) {
        let _ = self.proxy.stop().await;
        self.plain.abort();
    }

    /// The call, for a shell.
    pub fn command_line(&self) -> String {
        let dir = self.svids.dir.display();
        let n = self.svids.number("client").unwrap_or_default();
        format!(
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | {} s_client -connect {} -groups X25519MLKEM768 -ign_eof -quiet \
             -cert {dir}/svid.{n}.pem -cert_chain {dir}/svid.{n}.pem -key {dir}/svid.{n}.key -CAfile {dir}/bundle.{n}.pem",
            peers::dir().join("openssl").display(),
            self.address
        )
    }

    /// A request by OpenSSL's s_client as one of the workloads; what it printed, whether it succeeded or not.
    async fn call(&self, name: &str) -> Result<String> {
        let n = self.svids.number(name)?;
        let file = |kind: &str| -> PathBuf { self.svids.dir.join(kind.replace('N', &n.to_string())) };
        let mut command = openssl::openssl();
        command.args([
            "s_client",
            "-connect",
            &self.address.to_string(),
            "-groups",
            "X25519MLKEM768",
            "-ign_eof",
        ]);
        command.arg("-cert").arg(file("svid.N.pem")).arg("-cert_chain").arg(file("svid.N.pem"));
        command.arg("-key").arg(file("svid.N.key")).arg("-CAfile").arg(file("bundle.N.pem"));
        command.args(["-verify_return_error", "-tls1_3"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let output = timeout(PATIENCE, child.wait_with_output()).await.context("s_client hangs")??;
        drop(stdin);
        Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    async fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).await.is_err() {
            if Instant::now() > deadline {
                bail!("keyd-proxy does not listen:\n{}", self.proxy.log()?);
            }
            sleep(PAUSE).await;
        }
        self.served_again().await
    }
}

/// A caller of another SPIFFE ID is refused, and the proxy says whom and why.
pub async fn refuse(front: &Front) -> Result<String> {
    let words = front.call("stranger").await?;
    ensure!(!words.contains(GREETING), "a stranger was served:\n{words}");
    let log = front.proxy.log()?;
    let line = log
        .lines()
        .rev()
        .find(|l| l.contains("/stranger"))
        .context("the proxy does not say whom it refused")?;
    let alert = words.lines().find(|l| l.contains("alert")).unwrap_or("the connection was closed");
    let alert = alert.rsplit(':').find(|w| w.contains("alert")).unwrap_or(alert);
    ensure!(line.contains("spiffe://"), "{line}");
    Ok(format!(
        "spiffe://{TRUST_DOMAIN}/stranger has a valid SVID and is not in the proxy's list; OpenSSL: {}",
        alert.trim()
    ))
}

/// A server that knows no TLS.
async fn plain_server(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = [0; 1024];
            if stream.read(&mut request).await.is_ok_and(|n| n > 0) {
                let answer =
                    format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{GREETING}", GREETING.len());
                // A caller that left is its own affair.
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
    }
}

fn after<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.lines().find_map(|l| l.trim().strip_prefix(label)).map(str::trim)
}
