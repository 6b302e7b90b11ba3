//! `keyd.agent.v1`: identities whose keys stay in keyd.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use keyd_api::agent::v1;
use keyd_api::agent::v1::identity_service_server::IdentityService;
use keyd_api::status::from_failure;
use keyd_core::{Failure, Reason};
use keyd_x509::Certificate;
use tonic::{Request, Response, Status};

use crate::entry::Entry;
use crate::manager::Asks;
use crate::serve::stream::{Responses, View};
use crate::serve::{Desk, peer, unix_seconds, view};
use crate::snapshot::{Bundle, Snapshot};
use crate::svid::{Custody, Shared};

#[tonic::async_trait]
impl IdentityService for Desk {
    type WatchIdentityStream = Responses<v1::Identity>;

    async fn watch_identity(
        &self,
        request: Request<v1::WatchIdentityRequest>,
    ) -> Result<Response<Self::WatchIdentityStream>, Status> {
        let peer = peer(&request)?;
        let spiffe_id = request.into_inner().spiffe_id;
        let spiffe_id = (!spiffe_id.is_empty()).then_some(spiffe_id);
        Ok(self.follow(peer, Identity { spiffe_id, asks: Arc::clone(&self.asks) }))
    }

    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let peer = peer(&request)?;
        let v1::SignRequest { handle, message } = request.into_inner();
        let snapshot = self.snapshot.borrow().clone();
        let refuse = |failure: Failure| from_failure(&failure);
        // Whether a handle exists is nobody's business but its owner's.
        let entries = view::entries(&peer, &snapshot).await;
        let entries = entries.or_else(|f| if f.reason == Reason::Denied { Ok(Vec::new()) } else { Err(f) });
        let key = snapshot.key(&handle, &entries.map_err(refuse)?, SystemTime::now());
        let key = key.ok_or_else(|| {
            let why = "this process has no such key, or not any longer; the identity that it watches names the present one";
            refuse(Failure::new(Reason::KeyNotFound, why))
        })?;
        let signature = key.sign(&message).await.map_err(refuse)?;
        Ok(Response::new(v1::SignResponse { signature: signature.into() }))
    }
}

/// One identity of the caller's: the one that it named, or its first.
struct Identity {
    spiffe_id: Option<String>,
    asks: Arc<Asks>,
}

struct Seen {
    svid: Shared,
    bundles: Vec<(String, Bundle)>,
}

impl View for Identity {
    type Seen = Seen;
    type Message = v1::Identity;

    fn see(&self, snapshot: &Snapshot, entries: &[Arc<Entry>]) -> Result<Option<Seen>, Failure> {
        let named = |e: &&Arc<Entry>| self.spiffe_id.as_ref().is_none_or(|id| e.spiffe_id.as_str() == id);
        let entry = entries.iter().find(named).ok_or_else(|| {
            let id = self.spiffe_id.as_deref().unwrap_or_default();
            Failure::new(Reason::Denied, format!("no entry of the server gives this process {id:?}"))
        })?;
        let Some(svid) = snapshot.svid(&entry.id, Custody::Keyd, SystemTime::now()) else {
            self.asks.send_if_modified(|asked| asked.insert(entry.id.clone()));
            return match snapshot.failing(&entry.id, Custody::Keyd) {
                None => Ok(None),
                Some(why) => Err(Failure::new(
                    Reason::Unreachable,
                    format!("there is no SVID for {} yet: {why}", entry.spiffe_id),
                )),
            };
        };
        let own = |name: &_| *name == snapshot.trust_domain || entry.federates_with.contains(name);
        let bundles = snapshot.bundles.iter().filter(|(name, _)| own(name));
        let bundles = bundles.map(|(name, bundle)| (name.to_string(), Arc::clone(bundle))).collect();
        Ok(Some(Seen { svid, bundles }))
    }

    fn say(seen: &Seen) -> v1::Identity {
        let Seen { svid, bundles } = seen;
        let key = svid.keyd_key();
        let bundle =
            |(name, bundle): &(String, Bundle)| (name.clone(), v1::Bundle { authorities: ders(bundle) });
        v1::Identity {
            spiffe_id: svid.spiffe_id.to_string(),
            chain: ders(&svid.chain),
            bundles: bundles.iter().map(bundle).collect::<HashMap<_, _>>(),
            handle: key.map(|k| k.id().name.to_string()).unwrap_or_default(),
            public_key: key.map(|k| k.public_key().spki().to_vec()).unwrap_or_default().into(),
            not_after: unix_seconds(svid.lifetime.not_after),
        }
    }
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.svid, &other.svid) && self.bundles == other.bundles
    }
}

fn ders<B: From<Vec<u8>>>(certificates: &[Certificate]) -> Vec<B> {
    certificates.iter().map(|c| c.der().to_vec().into()).collect()
}
