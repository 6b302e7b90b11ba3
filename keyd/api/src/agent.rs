//! What keyd-agent offers a workload on its node: an X.509-SVID whose private key stays in hardware, and signatures by
//! handle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};
use keyd_core::{Failure, PublicKey, Reason};
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::{ENVELOPE, MESSAGE_LIMIT, connect, status};
use v1::identity_service_client::IdentityServiceClient;

/// The generated messages, clients and servers.
#[allow(missing_docs, clippy::all, reason = "generated; documented in the .proto file")]
pub mod v1 {
    tonic::include_proto!("keyd.agent.v1");
}

/// Where keyd-agent listens for this API unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/keyd-agent/agent.sock";

/// How long a signature may take; a discrete TPM can need 11 s to unseal a key before it.
const SIGN: Duration = Duration::from_secs(15);
/// How long the agent may take to open a stream of identities.
const OPEN: Duration = Duration::from_secs(10);
/// Waits between attempts to reach the agent.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Longest identity with its bundles, in bytes.
const IDENTITY_LIMIT: usize = 4 << 20; // 4 MiB

/// An identity as the agent gave it. Certificates are DER and not judged here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// `spiffe://TRUST-DOMAIN/PATH`.
    pub spiffe_id: String,
    /// DER certificates, leaf first, then intermediates.
    pub chain: Vec<Vec<u8>>,
    /// DER authorities by trust domain name.
    pub bundles: BTreeMap<String, Vec<Vec<u8>>>,
    /// What [`AgentClient::sign`] takes.
    pub handle: String,
    /// The leaf's key.
    pub public_key: PublicKey,
    /// When the leaf ends.
    pub not_after: SystemTime,
}

/// A client of keyd-agent on one socket. Cheap to clone; all clones share a connection, which is made again when the
/// agent comes back.
#[derive(Clone, Debug)]
pub struct AgentClient {
    socket: PathBuf,
    client: IdentityServiceClient<Channel>,
}

impl AgentClient {
    /// A client of the agent that listens on `socket`. Nothing is sent until the first call.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        let socket = socket.as_ref().to_path_buf();
        let client = IdentityServiceClient::new(connect::unix_channel(&socket))
            .max_encoding_message_size(MESSAGE_LIMIT + ENVELOPE)
            .max_decoding_message_size(IDENTITY_LIMIT);
        Self { socket, client }
    }

    /// Signs a whole message with the key behind `handle`: raw bytes for ML-DSA, DER `ECDSA-Sig-Value` for elliptic
    /// curves.
    ///
    /// # Errors
    /// As the agent refuses it, [`Reason::DeadlineExceeded`] or [`Reason::Unreachable`].
    pub async fn sign(&self, handle: &str, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let message = v1::SignRequest { handle: handle.to_owned(), message: message.to_vec().into() };
        let mut request = Request::new(message);
        request.set_timeout(SIGN);
        let response = self.client.clone().sign(request).await.map_err(|s| self.failure(&s))?;
        Ok(response.into_inner().signature.into())
    }

    /// Follows the identity for as long as a receiver lives; must be called on a tokio runtime. The value is `None`
    /// until the agent gave one, and again once the agent says that this caller has none. While the agent cannot be
    /// reached the last identity stays: whoever uses it must look at [`AgentIdentity::not_after`].
    pub fn watch(&self, spiffe_id: Option<String>) -> watch::Receiver<Option<Arc<AgentIdentity>>> {
        let (sender, receiver) = watch::channel(None);
        let (client, spiffe_id) = (self.clone(), spiffe_id.unwrap_or_default());
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = client.follow(&spiffe_id, &sender) => {}
            }
        });
        receiver
    }

    async fn follow(&self, spiffe_id: &str, sender: &watch::Sender<Option<Arc<AgentIdentity>>>) {
        let delays =
            ExponentialBuilder::new().with_min_delay(BACKOFF_MIN).with_max_delay(BACKOFF_MAX).with_jitter();
        let mut delay = delays.without_max_times().build();
        loop {
            let error = match self.open(spiffe_id).await {
                Ok(mut stream) => loop {
                    match self.next(&mut stream).await {
                        Ok(identity) => {
                            delay = delays.without_max_times().build();
                            sender.send_replace(Some(Arc::new(identity)));
                        }
                        Err(error) => break error,
                    }
                },
                Err(error) => error,
            };
            if error.reason == Reason::Denied {
                sender.send_replace(None);
            }
            tracing::warn!(%error, "the stream of identities ended; trying again");
            tokio::time::sleep(delay.next().unwrap_or(BACKOFF_MAX)).await;
        }
    }

    async fn open(&self, spiffe_id: &str) -> Result<Streaming<v1::Identity>, Failure> {
        let request = v1::WatchIdentityRequest { spiffe_id: spiffe_id.to_owned() };
        let mut client = self.client.clone();
        // No timeout in the request itself: it would end the stream too.
        let answer = tokio::time::timeout(OPEN, client.watch_identity(request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the agent did not open a stream")));
        answer.map(tonic::Response::into_inner).map_err(|s| self.failure(&s))
    }

    async fn next(&self, stream: &mut Streaming<v1::Identity>) -> Result<AgentIdentity, Failure> {
        let ended = || Status::unavailable("the agent ended the stream");
        let message = stream.message().await.and_then(|m| m.ok_or_else(ended));
        message.map_err(|s| self.failure(&s)).and_then(AgentIdentity::try_from)
    }

    fn failure(&self, status: &Status) -> Failure {
        status::failure_of("keyd-agent", status, &self.socket.display().to_string())
    }
}

impl TryFrom<v1::Identity> for AgentIdentity {
    type Error = Failure;

    fn try_from(identity: v1::Identity) -> Result<Self, Failure> {
        let bad = |what: &str| Failure::new(Reason::BadRequest, format!("the agent gave an identity {what}"));
        let not_after = u64::try_from(identity.not_after)
            .ok()
            .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
            .ok_or_else(|| bad("that ends at no time a clock can show"))?;
        if identity.chain.is_empty() || identity.handle.is_empty() {
            return Err(bad("without certificate or handle"));
        }
        let ders = |list: Vec<prost::bytes::Bytes>| list.into_iter().map(Vec::from).collect();
        Ok(Self {
            spiffe_id: identity.spiffe_id,
            chain: ders(identity.chain),
            bundles: identity.bundles.into_iter().map(|(name, b)| (name, ders(b.authorities))).collect(),
            handle: identity.handle,
            public_key: PublicKey::from_spki(&identity.public_key)?,
            not_after,
        })
    }
}
