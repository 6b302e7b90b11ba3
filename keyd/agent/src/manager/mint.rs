//! SVIDs of workloads.

use std::sync::Arc;
use std::time::SystemTime;

use keyd_core::Failure;

use super::Manager;
use crate::error::AgentError;
use crate::server::BATCH;
use crate::svid::Want;
use crate::svid::mint::Begun;

impl Manager {
    /// Makes the SVIDs that are due.
    pub(super) async fn mint(&mut self) -> Result<(), AgentError> {
        if std::mem::replace(&mut self.leftovers, false)
            && let Err(failure) = self.maker.destroy_leftovers().await
        {
            tracing::warn!(%failure, "keys by handle of an earlier run may be left in keyd");
        }
        let due = self.cache.due(SystemTime::now());
        self.changed |= !due.is_empty();
        for batch in due.chunks(BATCH) {
            let mut begun = Vec::new();
            for want in batch {
                match self.maker.begin(want.clone()).await {
                    Ok(made) => begun.push(made),
                    Err(error) => self.no_svid(want.clone(), Failure::from(error).message),
                }
                tokio::task::yield_now().await;
            }
            if !begun.is_empty() {
                self.certify(begun).await?;
            }
        }
        Ok(())
    }

    async fn certify(&mut self, begun: Vec<Begun>) -> Result<(), AgentError> {
        let requests = begun.iter().map(|b| (b.want.entry.clone(), b.csr.clone())).collect();
        let results = match self.server.mint(requests).await {
            Ok(results) => results,
            Err(error) => {
                self.maker.destroy(begun.iter().filter_map(Begun::in_keyd)).await;
                return Err(error);
            }
        };
        let bundles = self.server.bundles();
        for (begun, result) in begun.into_iter().zip(results) {
            let now = SystemTime::now();
            let want = begun.want.clone();
            let finished = match self.cache.entry(&want.entry) {
                Some(entry) => result.and_then(|chain| begun.finish(entry, &chain, &bundles, now)),
                None => Err("its entry is gone".to_owned()),
            };
            match finished {
                Ok(svid) => {
                    tracing::info!(id = %svid.spiffe_id, custody = ?want.custody, "an SVID is issued");
                    self.cache.install(want, Arc::new(svid), now);
                }
                Err(why) => {
                    self.maker.destroy(begun.in_keyd()).await;
                    self.no_svid(want, why);
                }
            }
        }
        Ok(())
    }

    fn no_svid(&mut self, want: Want, why: String) {
        tracing::warn!(entry = want.entry, custody = ?want.custody, %why, "no SVID");
        self.cache.failed(want, why, SystemTime::now());
    }
}
