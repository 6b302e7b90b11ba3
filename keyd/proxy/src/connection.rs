//! One connection, from its first byte to its last.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use keyd_tls::{Acceptor, TlsError};
use keyd_x509::SpiffeId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::relay::relay;

/// How long the server behind may take to accept.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a goodbye to a peer may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// What every connection needs.
#[derive(Clone)]
pub struct Proxy {
    /// Runs handshakes.
    pub acceptor: Acceptor,
    /// The plain server behind.
    pub upstream: SocketAddr,
    /// How long a connection may be idle.
    pub idle: Duration,
}

impl Proxy {
    /// Takes one connection to its end; how it went is in the log.
    pub async fn run(self, tcp: TcpStream, address: SocketAddr) {
        // Both ends decide for themselves when a segment is full.
        let _ = tcp.set_nodelay(true);
        let session = match self.acceptor.accept(tcp).await {
            Ok(session) => session,
            Err(TlsError::Refused(refusal)) => {
                let spiffe_id = refusal.peer.as_ref().map(SpiffeId::as_str);
                tracing::warn!(%address, spiffe_id, rule = %refusal.rule, "peer refused");
                return;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%address, %error, cause, "no session");
                return;
            }
        };
        let (peer, mut stream) = (session.peer, session.stream);
        let upstream = match self.connect().await {
            Ok(upstream) => upstream,
            Err(error) => {
                tracing::error!(%address, spiffe_id = %peer, upstream = %self.upstream, %error, "no server behind");
                let _ = timeout(GOODBYE, stream.shutdown()).await;
                return;
            }
        };
        tracing::info!(%address, spiffe_id = %peer, "connected");
        match relay(stream, upstream, self.idle).await {
            Ok((received, sent)) => {
                tracing::info!(%address, spiffe_id = %peer, received, sent, "closed");
            }
            Err(error) => tracing::info!(%address, spiffe_id = %peer, %error, "broke off"),
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let upstream = timeout(CONNECT, TcpStream::connect(self.upstream)).await??;
        upstream.set_nodelay(true)?;
        Ok(upstream)
    }
}
