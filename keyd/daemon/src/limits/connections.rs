//! A bound on the connections that one user has open. One too many is closed unread.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::{Connected, UdsConnectInfo};

use super::Shares;

/// The connections that arrive, at most `each` of one user at once; counts those that are refused.
pub fn per_user(
    listener: UnixListener,
    each: usize,
    refused: Counter,
) -> impl Stream<Item = io::Result<Connection>> {
    let shares = Arc::new(Shares::new(each, refused));
    UnixListenerStream::new(listener).filter_map(move |arrived| match arrived {
        Ok(stream) => admit(&shares, stream).map(Ok),
        Err(error) => Some(Err(error)),
    })
}

fn admit(shares: &Shares, stream: UnixStream) -> Option<Connection> {
    // Whoever the kernel does not name is let in no further than the policy, which refuses.
    let uid = stream.peer_cred().ok()?.uid();
    match shares.of(uid).try_acquire_owned() {
        Ok(place) => Some(Connection { stream, _place: place }),
        Err(_) => {
            shares.refused.inc();
            tracing::warn!(uid, each = shares.each, "connection refused: limits.connections_per_user");
            None
        }
    }
}

/// A connection that counts until it is dropped.
pub struct Connection {
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
