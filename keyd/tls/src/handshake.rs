//! Handshakes, apart from the program's own work.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use keyd_x509::{Certificate, SpiffeId};
use rustls::pki_types::ServerName;
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::{Profile, Settings, TlsError};

/// Most handshakes at once; others wait, each within its own time limit.
pub const HANDSHAKE_LIMIT: usize = 256;
/// Threads that drive handshakes while none of them waits for a signature.
const WORKERS: usize = 2;

/// Where handshakes run. rustls blocks its thread until a signature is there; here that holds up neither the program,
/// which fetches the signature, nor another handshake, because a thread that waits hands its work on to another one.
/// Cheap to clone; one is enough for a program.
#[derive(Clone, Debug)]
pub struct Handshakes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slots: Arc<Semaphore>,
    handshakes: Background,
}

impl Handshakes {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`TlsError::Threads`].
    pub fn start() -> Result<Self, TlsError> {
        Ok(Self(Arc::new(Inner {
            slots: Arc::new(Semaphore::new(HANDSHAKE_LIMIT)),
            // One more thread for each handshake that waits for its signature.
            handshakes: Background::start("tls-handshake", WORKERS, HANDSHAKE_LIMIT)?,
        })))
    }

    /// Runs one handshake. Dropping the future ends it.
    async fn run<T, F>(&self, limit: Duration, handshake: F) -> Result<T, TlsError>
    where
        T: Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
    {
        let deadline = Instant::now() + limit;
        let slots = Arc::clone(&self.0.slots);
        let mut task = JoinSet::new();
        let outcome = timeout_at(deadline, async {
            let slot = slots.acquire_owned().await.map_err(io::Error::other)?;
            let handshake = DEADLINE.scope(deadline, handshake);
            // The slot is free when the thread is, which may be a little after the deadline.
            task.spawn_on(async move { (handshake.await, slot).0 }, self.0.handshakes.handle());
            task.join_next()
                .await
                .ok_or_else(|| io::Error::other("the handshake vanished"))?
                .map_err(io::Error::other)?
        });
        match outcome.await {
            Ok(finished) => finished.map_err(TlsError::of_handshake),
            Err(_) => Err(TlsError::TimedOut { limit }),
        }
    }
}

tokio::task_local! {
    static DEADLINE: Instant;
}

/// When the handshake that this thread drives must be over; `None` outside of [`Handshakes`].
pub(crate) fn deadline() -> Option<Instant> {
    DEADLINE.try_get().ok()
}

// === sessions ===

/// A finished handshake.
#[derive(Debug)]
pub struct Session<IO> {
    /// The stream.
    pub stream: TlsStream<IO>,
    /// Who is at the other end: verified and allowed.
    pub peer: SpiffeId,
}

impl<IO> Session<IO> {
    /// Looks at what was negotiated once more, so that a fault in a configuration cannot pass.
    fn new(stream: TlsStream<IO>, profile: Profile) -> Result<Self, TlsError> {
        let (_, state) = stream.get_ref();
        if state.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Err(TlsError::Session("it is not TLS 1.3"));
        }
        if state.negotiated_key_exchange_group().map(|g| g.name()) != Some(profile.group()) {
            return Err(TlsError::Session("its key exchange is not the one that the profile demands"));
        }
        if !matches!(
            state.handshake_kind(),
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
        ) {
            return Err(TlsError::Session("it was resumed"));
        }
        let leaf = state.peer_certificates().and_then(<[_]>::first);
        let leaf = leaf.ok_or(TlsError::Session("the peer has no certificate"))?;
        let peer = Certificate::from_der(leaf)?.leaf_spiffe_id()?;
        Ok(Self { stream, peer })
    }
}

/// The server's side of links.
#[derive(Clone)]
pub struct Acceptor {
    handshakes: Handshakes,
    settings: Settings,
    acceptor: TlsAcceptor,
}

impl Acceptor {
    /// An acceptor with these settings.
    ///
    /// # Errors
    /// [`TlsError::Settings`].
    pub fn new(handshakes: Handshakes, settings: Settings) -> Result<Self, TlsError> {
        let acceptor = Arc::new(settings.server()?).into();
        Ok(Self { handshakes, settings, acceptor })
    }

    /// Runs a handshake as server on an accepted connection.
    ///
    /// # Errors
    /// [`TlsError::Refused`] for a peer that breaks a rule, and whatever else ends a handshake.
    pub async fn accept<IO>(&self, io: IO) -> Result<Session<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.settings.usable_identity()?.ok_or(TlsError::NoIdentity)?;
        let acceptor = self.acceptor.clone();
        let handshake = async move { acceptor.accept(io).await };
        let stream = self.handshakes.run(self.settings.handshake_timeout, handshake).await?;
        Session::new(stream.into(), self.settings.profile)
    }
}

/// The client's side of links.
#[derive(Clone)]
pub struct Connector {
    handshakes: Handshakes,
    settings: Settings,
    connector: TlsConnector,
}

impl Connector {
    /// A connector with these settings.
    ///
    /// # Errors
    /// [`TlsError::Settings`].
    pub fn new(handshakes: Handshakes, settings: Settings) -> Result<Self, TlsError> {
        let connector = Arc::new(settings.client()?).into();
        Ok(Self { handshakes, settings, connector })
    }

    /// Runs a handshake as client on an open connection. `name` goes into the hello for whoever routes by it; the
    /// peer is known by its SPIFFE ID alone.
    ///
    /// # Errors
    /// [`TlsError::Refused`] for a peer that breaks a rule, and whatever else ends a handshake. A server that refuses
    /// this client may say so only when the session is first read (RFC 8446 §4.4.2.4).
    pub async fn connect<IO>(&self, name: ServerName<'static>, io: IO) -> Result<Session<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // An identity that ended would be left out, and the server's answer to that would puzzle the reader.
        self.settings.usable_identity()?;
        let connector = self.connector.clone();
        let handshake = async move { connector.connect(name, io).await };
        let stream = self.handshakes.run(self.settings.handshake_timeout, handshake).await?;
        Session::new(stream.into(), self.settings.profile)
    }
}

// === threads ===

/// A runtime that may be dropped anywhere: one that is dropped within another would panic.
#[derive(Debug)]
struct Background(Handle, Option<Runtime>);

impl Background {
    fn start(name: &str, workers: usize, blocking: usize) -> Result<Self, TlsError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .max_blocking_threads(blocking)
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(TlsError::Threads)?;
        Ok(Self(runtime.handle().clone(), Some(runtime)))
    }

    fn handle(&self) -> &Handle {
        &self.0
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.1.take() {
            runtime.shutdown_background();
        }
    }
}
