//! The agent's own SVID: had from an earlier run, attested, renewed, given up.

use std::time::{Duration, SystemTime};

use keyd_core::Failure;
use keyd_unix::off_worker;
use tokio::time::Instant;

use super::Manager;
use crate::error::AgentError;
use crate::own::Own;

/// How long a renewal that failed is left alone while the SVID before it is good.
const RENEWAL_RETRY: Duration = Duration::from_secs(30);

impl Manager {
    /// Has an SVID of the agent's own that the server takes.
    pub(super) async fn see_to_own(&mut self) -> Result<(), AgentError> {
        let now = SystemTime::now();
        if let Some(chain) = self.chain.clone() {
            let own = self.attestor.resume(chain, &self.server.bundles(), now).await?;
            self.chain = None;
            if let Some(own) = own {
                tracing::info!(id = %own.id, "the agent goes on with the SVID that it has");
                self.adopt(own)?;
            }
        }
        match &self.own {
            Some(own) if !own.lifetime.ended(now) && !self.must_attest => {
                if !own.lifetime.renewal_due(now) || Instant::now() < self.renewal_from {
                    return Ok(());
                }
                if let Err(error) = self.attest().await {
                    tracing::warn!(error = %Failure::from(error), "cannot renew the agent's SVID yet");
                    self.renewal_from = Instant::now() + RENEWAL_RETRY;
                }
                Ok(())
            }
            _ => {
                // A handshake with what the server takes no longer would fail.
                self.server.show(None);
                self.attest().await
            }
        }
    }

    async fn attest(&mut self) -> Result<(), AgentError> {
        // The CA may have changed while this node was away, and the certificate in the server's TLS not yet.
        self.hear_own_bundle().await?;
        let key = match self.spare.take() {
            Some(key) => key,
            None => self.attestor.fresh_key(self.own.as_ref().map(|own| &own.key)).await?,
        };
        self.spare = Some(key.clone());
        let own = self.attestor.attest(&self.server, key).await?;
        self.spare = None;
        self.must_attest = false;
        // On disk before it is shown: once the server has seen the new one, the old one is of no use.
        let (state, chain) = (self.state.clone(), own.chain.clone());
        if let Err(error) = off_worker(move || state.keep_chain(&chain)).await {
            tracing::error!(error = %Failure::from(error), "the agent's certificate is not kept for the next start");
        }
        tracing::info!(id = %own.id, key = %own.key.id(), "the agent is attested");
        self.adopt(own)
    }

    fn adopt(&mut self, own: Own) -> Result<(), AgentError> {
        self.server.show(Some(own.identity()?));
        keyd_unix::tell_manager(&format!("STATUS=attested as {}", own.id));
        self.health.send_modify(|health| health.own = Some(own.clone()));
        self.own = Some(own);
        Ok(())
    }

    /// The operator banned this node: from now on it vouches for nobody.
    pub(super) async fn give_everything_up(&mut self) {
        tracing::error!("the server has banned this agent; no workload is served any more");
        self.cache.clear(SystemTime::now());
        self.own = None;
        self.server.show(None);
        self.health.send_modify(|health| health.own = None);
        self.changed = true;
        let state = self.state.clone();
        if let Err(error) = off_worker(move || state.forget_chain()).await {
            tracing::error!(error = %Failure::from(error), "the agent's certificate stays on disk");
        }
    }
}
