//! The proxy's own identity, as keyd-agent gives it.

use std::sync::Arc;

use keyd_api::agent::{AgentClient, AgentIdentity};
use keyd_core::{BoxFuture, Failure};
use keyd_tls::{Bundles, HandleKey, Identity, RemoteSigner, TlsError};
use keyd_x509::{Certificate, TrustDomain, X509Error};
use tokio::sync::watch;

/// What a handshake shows and believes, always the newest.
pub struct Newest {
    /// The own identity; `None` while there is none.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Whose signatures are believed.
    pub bundles: watch::Receiver<Arc<Bundles>>,
}

/// Follows the agent from now on.
pub fn follow(client: AgentClient, spiffe_id: Option<String>) -> Newest {
    let mut agent = client.watch(spiffe_id);
    let (identities, identity) = watch::channel(None);
    let (trusted, bundles) = watch::channel(Arc::default());
    tokio::spawn(async move {
        while agent.changed().await.is_ok() {
            let given = agent.borrow_and_update().clone();
            let Some(given) = given else {
                tracing::warn!("the agent has no identity for this proxy; nobody is let in");
                identities.send_replace(None);
                continue;
            };
            let signer = AgentSigner { client: client.clone(), handle: given.handle.clone() };
            match read(&given, Arc::new(signer)) {
                Ok((identity, bundles)) => {
                    tracing::info!(spiffe_id = %identity.id(), ends = ?identity.not_after(), "identity");
                    // The bundles first, so that no handshake shows a new chain and believes an old root.
                    trusted.send_replace(Arc::new(bundles));
                    identities.send_replace(Some(Arc::new(identity)));
                }
                Err(error) => {
                    tracing::error!(%error, "what the agent gave is no good; the identity before stays");
                }
            }
        }
    });
    Newest { identity, bundles }
}

pub(crate) fn read(
    given: &AgentIdentity,
    signer: Arc<dyn RemoteSigner>,
) -> Result<(Identity, Bundles), TlsError> {
    let key = HandleKey::new(given.public_key.clone(), signer);
    let identity = Identity::new(&certificates(&given.chain)?, Arc::new(key))?;
    let mut bundles = Bundles::default();
    for (name, authorities) in &given.bundles {
        let put = name.parse::<TrustDomain>().map_err(TlsError::from);
        let put = put.and_then(|td| bundles.set(td, &certificates(authorities)?));
        // One bad federated bundle costs its own trust domain, not every other.
        if let Err(error) = put {
            tracing::error!(trust_domain = name, %error, "a bundle is left out");
        }
    }
    Ok((identity, bundles))
}

fn certificates(ders: &[Vec<u8>]) -> Result<Vec<Certificate>, X509Error> {
    ders.iter().map(|der| Certificate::from_der(der)).collect()
}

/// A key that the agent holds.
struct AgentSigner {
    client: AgentClient,
    handle: String,
}

impl RemoteSigner for AgentSigner {
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(self.client.sign(&self.handle, message))
    }
}
