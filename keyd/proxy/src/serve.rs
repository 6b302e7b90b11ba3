//! `keyd-proxy serve`: accepts, up to a limit, and stops without cutting anybody off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keyd_api::agent::AgentClient;
use keyd_core::{Failure, Reason};
use keyd_tls::{Acceptor, Handshakes, Profile, Settings};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::config::Config;
use crate::connection::Proxy;
use crate::identity;

/// How long to leave accepting alone after it failed, as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until SIGTERM or SIGINT. It listens before the agent has given an identity, and lets nobody in until then.
///
/// # Errors
/// Whatever keeps the proxy from starting.
pub async fn serve(config: Config) -> Result<(), Failure> {
    let client = AgentClient::new(&config.agent_socket);
    let own = identity::follow(client, config.spiffe_id.as_ref().map(ToString::to_string));
    let settings = Settings {
        profile: Profile::PostQuantum,
        identity: own.identity,
        bundles: own.bundles,
        allowed: config.allow.clone(),
        alpn: Vec::new(),
        handshake_timeout: config.handshake_timeout(),
    };
    let proxy = Proxy {
        acceptor: Acceptor::new(Handshakes::start()?, settings)?,
        upstream: config.upstream,
        idle: config.idle_timeout(),
    };
    let door = Door::open(&config).await?;
    let stop = keyd_unix::told_to_stop()?;
    tokio::pin!(stop);

    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut stop => break,
            (tcp, address, slot) = door.next() => {
                let proxy = proxy.clone();
                connections.spawn(async move { (proxy.run(tcp, address).await, slot).0 });
            }
            Some(ended) = connections.join_next() => note(ended),
        }
    }

    drop(door);
    keyd_unix::tell_manager("STOPPING=1");
    tracing::info!(connections = connections.len(), "stopping");
    let drained = timeout(config.drain_timeout(), async {
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "the time to stop is over; connections are cut off");
    }
    Ok(())
}

/// Where connections come in, as many as there are slots.
struct Door {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    limit: usize,
}

impl Door {
    async fn open(config: &Config) -> Result<Self, Failure> {
        let fault = |e| Failure::new(Reason::BadConfig, format!("cannot listen on {}: {e}", config.listen));
        let listener = TcpListener::bind(config.listen).await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        tracing::info!(%address, upstream = %config.upstream, "listening");
        keyd_unix::tell_manager(&format!("READY=1\nSTATUS=listening on {address} for {}", config.upstream));
        let limit = config.connections;
        Ok(Self { listener, slots: Arc::new(Semaphore::new(limit)), limit })
    }

    /// The next connection, once there is a slot for it; until then it waits in the kernel's queue.
    async fn next(&self) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            if self.slots.available_permits() == 0 {
                tracing::warn!(limit = self.limit, "as many connections as there may be; others wait");
            }
            // An error means that the semaphore was closed, which nobody does.
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                return std::future::pending().await;
            };
            match self.listener.accept().await {
                Ok((tcp, address)) => return (tcp, address, slot),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
