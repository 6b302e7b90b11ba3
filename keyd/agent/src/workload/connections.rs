//! Connections whose requests carry the [`Peer`].

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

use crate::workload::Peer;

/// Most open connections of one user, so that nobody can use up what all need.
const PER_USER: usize = 256;

/// Counts the connections of each user.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Mutex<HashMap<u32, usize>>>);

impl Connections {
    /// Looks who is at the other end.
    ///
    /// # Errors
    /// The kernel's; a user with too many connections.
    pub fn admit(&self, stream: UnixStream) -> io::Result<Connection> {
        let peer = Peer::of(&stream)?;
        let uid = peer.uid;
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(uid).or_default();
        if *count >= PER_USER {
            tracing::warn!(uid, limit = PER_USER, "a user has too many connections");
            return Err(io::Error::other("too many connections"));
        }
        *count += 1;
        Ok(Connection { stream, peer, _place: Place { connections: self.clone(), uid } })
    }
}

/// A place among a user's connections, free again when dropped.
#[derive(Debug)]
struct Place {
    connections: Connections,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.uid);
            }
        }
    }
}

// === impl Connection ===

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    peer: Peer,
    _place: Place,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_has_only_so_many_connections_at_once() {
        let connections = Connections::default();
        let admit = || {
            let (stream, other) = UnixStream::pair().unwrap();
            connections.admit(stream).map(|connection| (connection, other))
        };
        let mut open: Vec<_> = (0..PER_USER).map(|_| admit().unwrap()).collect();
        assert!(admit().is_err());
        open.pop();
        open.push(admit().unwrap());
        drop(open);
        assert!(connections.0.lock().unwrap().is_empty(), "nothing is left of who went away");
    }
}
