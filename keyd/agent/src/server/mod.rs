//! The one link to the SPIRE server: TLS 1.3 over X25519MLKEM768 alone, the server known by its SPIFFE ID, this agent
//! by its SVID.
//!
//! The server does not enforce a post-quantum key exchange, so this side does. Its TLS leaf is an elliptic-curve one
//! even under an ML-DSA CA, hence [`Profile::SpireServer`].

mod attestation;
mod calls;
mod refusal;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use keyd_core::Failure;
use keyd_tls::{AllowedIds, Bundles, Connector, Handshakes, Identity, Profile, Settings};
use keyd_x509::{Certificate, SpiffeId, TrustDomain};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint, Uri};

#[cfg(fuzzing)]
pub(crate) use calls::numbered;
pub use calls::{BATCH, Numbered};

use crate::config::ServerAddress;
use crate::error::AgentError;

/// How long a TCP connection may take to come up.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a handshake may take; a discrete TPM can need 11 s to unseal the key that signs in it.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// How often a connection is probed while a call waits, and how long the answer may take: half of a call's limit, and
/// rare enough for what gRPC servers put up with.
const PROBE: Duration = Duration::from_secs(8);

/// The server, as this agent reaches it. One user at a time.
pub struct SpireServer {
    address: ServerAddress,
    trust_domain: TrustDomain,
    identity: watch::Sender<Option<Arc<Identity>>>,
    bundles: watch::Sender<Arc<Bundles>>,
    /// Shows this agent's SVID.
    known: Connector,
    /// Shows nothing: for attestation.
    unknown: Connector,
    /// Over `known`; made anew after an error, and for a new SVID.
    channel: Option<Channel>,
}

impl SpireServer {
    /// The server at `address`, to be verified by `bundle`. Nothing is sent until the first call.
    ///
    /// # Errors
    /// [`AgentError::Tls`] for a bundle that is none, or when threads cannot be started.
    pub fn new(
        address: ServerAddress,
        trust_domain: TrustDomain,
        bundle: &[Certificate],
    ) -> Result<Self, AgentError> {
        let handshakes = Handshakes::start()?;
        let id: SpiffeId = format!("spiffe://{trust_domain}/spire/server").parse()?;
        let (identity, shown) = watch::channel(None);
        let (bundles, believed) = watch::channel(Arc::default());
        let settings = Settings {
            profile: Profile::SpireServer,
            identity: shown,
            bundles: believed,
            allowed: AllowedIds::from_iter([id]),
            alpn: vec![b"h2".to_vec()],
            handshake_timeout: HANDSHAKE,
        };
        let nobody = watch::channel(None).1;
        let unknown = Connector::new(handshakes.clone(), Settings { identity: nobody, ..settings.clone() })?;
        let known = Connector::new(handshakes, settings)?;
        let server = Self { address, trust_domain, identity, bundles, known, unknown, channel: None };
        server.believe(server.to_believe(bundle)?);
        Ok(server)
    }

    /// Reads a bundle of the server's trust domain.
    ///
    /// # Errors
    /// [`AgentError::Tls`] for authorities that may not be some.
    pub fn to_believe(&self, bundle: &[Certificate]) -> Result<Bundles, AgentError> {
        let mut bundles = Bundles::default();
        bundles.set(self.trust_domain.clone(), bundle)?;
        Ok(bundles)
    }

    /// Verifies the server by this from now on.
    pub fn believe(&self, bundles: Bundles) {
        self.bundles.send_replace(Arc::new(bundles));
    }

    /// What the server is verified by.
    pub fn bundles(&self) -> Arc<Bundles> {
        Arc::clone(&self.bundles.borrow())
    }

    /// Shows this SVID from now on, on new connections; the old ones are given up.
    pub fn show(&mut self, identity: Option<Arc<Identity>>) {
        self.identity.send_replace(identity);
        self.channel = None;
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        self.address.as_str()
    }

    /// The channel that this agent is known on.
    fn channel(&mut self) -> Channel {
        let (known, address) = (&self.known, &self.address);
        let connect = || {
            let probed = endpoint()
                .http2_keep_alive_interval(PROBE)
                .keep_alive_timeout(PROBE)
                .keep_alive_while_idle(false);
            open(probed, known.clone(), address.clone())
        };
        self.channel.get_or_insert_with(connect).clone()
    }

    /// A channel for one attestation. Not probed: the node's TPM may take longer than gRPC servers let probes go on.
    fn unknown_channel(&self) -> Channel {
        open(endpoint(), self.unknown.clone(), self.address.clone())
    }
}

fn endpoint() -> Endpoint {
    // The authority is never looked up; HTTP/2 wants one, and SPIRE one with a port.
    Endpoint::from_static("http://spire-server:443")
}

/// A channel that connects at its first call, and again when its connection broke.
fn open(endpoint: Endpoint, connector: Connector, address: ServerAddress) -> Channel {
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let stream = timeout(CONNECT, TcpStream::connect(address.as_str()))
                .await
                .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")))?;
            stream.set_nodelay(true)?;
            let session = connector.connect(address.name().clone(), stream).await.map_err(words)?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(TokioIo::new(session.stream))
        }
    }))
}

/// A handshake that failed, with what an operator can do about it.
fn words(error: keyd_tls::TlsError) -> Failure {
    let no_common_ground = matches!(&error, keyd_tls::TlsError::Handshake(io) if refused_hello(io));
    let failure = Failure::from(error);
    match no_common_ground {
        true => Failure::new(
            failure.reason,
            format!(
                "{failure}; this agent offers TLS 1.3 with X25519MLKEM768 alone, which the server does not take"
            ),
        ),
        false => failure,
    }
}

/// Whether the peer found nothing in the hello that it takes (RFC 8446 §4.1.1).
fn refused_hello(error: &io::Error) -> bool {
    use rustls::{AlertDescription, Error};
    matches!(
        error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()),
        Some(
            Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion)
                | Error::PeerIncompatible(_)
        )
    )
}
