//! What the server has to say: entries and bundles.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use keyd_core::Failure;
use keyd_unix::off_worker;
use keyd_x509::TrustDomain;

use super::{Known, Manager};
use crate::entry::Entry;
use crate::error::AgentError;
use crate::server::Numbered;
use crate::snapshot::Bundle;

impl Manager {
    /// Takes in the server's entries and bundles.
    pub(super) async fn hear(&mut self) -> Result<(), AgentError> {
        let entries = self.server.entries().await?;
        let trust_domain = self.attestor.trust_domain.clone();
        let mut refused = Vec::new();
        let entries: Vec<Entry> = entries
            .into_iter()
            .filter_map(|e| Entry::new(e, &trust_domain).map_err(|why| refused.push(why)).ok().flatten())
            .collect();
        let federated: BTreeSet<_> = entries.iter().flat_map(|e| e.federates_with.clone()).collect();
        let count = entries.len();
        self.changed |= !std::mem::replace(&mut self.heard, true);
        if self.cache.set_entries(entries, SystemTime::now()) {
            self.changed = true;
            tracing::info!(entries = count, "the server's entries changed");
            refused.iter().for_each(|why| tracing::warn!(%why, "an entry is left out"));
            self.take_asks();
        }
        self.hear_own_bundle().await?;
        self.hear_federated(&federated).await;
        self.health.send_modify(|health| health.last_contact = Some(SystemTime::now()));
        Ok(())
    }

    /// Takes in the bundle of the agent's own trust domain, which the server shows to everybody.
    pub(super) async fn hear_own_bundle(&mut self) -> Result<(), AgentError> {
        let Some(known) = self.bundles.get_mut(&self.attestor.trust_domain) else { return Ok(()) };
        let Some(new) = self.server.bundle(known.sequence).await? else { return Ok(()) };
        let believed = match self.server.to_believe(&new.authorities) {
            Ok(believed) => believed,
            Err(error) => {
                // It is asked for again: the server's next one may be in order.
                let why = Failure::from(error).message;
                let why = format!("the server's trust bundle is refused, and the one before stays: {why}");
                if self.refused_bundle.as_ref() != Some(&why) {
                    tracing::error!("{why}");
                }
                self.refused_bundle = Some(why);
                return Ok(());
            }
        };
        self.refused_bundle = None;
        // On disk before it is used: what it vouches for must be good after a crash too.
        let (state, bundle) = (self.state.clone(), Bundle::from(new.authorities));
        let kept = Arc::clone(&bundle);
        if let Err(error) = off_worker(move || state.keep_bundle(&kept)).await {
            tracing::error!(error = %Failure::from(error), "the bundle is not kept for the next start");
        }
        self.server.believe(believed);
        tracing::info!(authorities = bundle.len(), "the trust bundle is up to date");
        known.sequence = Some(new.sequence);
        known.bundle = bundle;
        self.changed = true;
        Ok(())
    }

    /// A foreign bundle that cannot be had now keeps nothing else from going on.
    async fn hear_federated(&mut self, wanted: &BTreeSet<TrustDomain>) {
        let own = &self.attestor.trust_domain;
        let before = self.bundles.len();
        self.bundles.retain(|name, _| name == own || wanted.contains(name));
        self.changed |= self.bundles.len() != before;
        for name in wanted {
            let known = self.bundles.get(name).and_then(|known| known.sequence);
            match self.server.federated_bundle(name, known).await {
                Ok(Some(new)) => {
                    self.bundles.insert(name.clone(), new.into());
                    self.changed = true;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(trust_domain = %name, error = %Failure::from(error), "no federated bundle");
                }
            }
        }
    }
}

impl From<Numbered> for Known {
    fn from(numbered: Numbered) -> Self {
        Self { bundle: numbered.authorities.into(), sequence: Some(numbered.sequence) }
    }
}
