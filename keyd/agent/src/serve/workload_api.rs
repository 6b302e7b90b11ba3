//! The SPIFFE Workload API.

use std::collections::HashMap;
use std::sync::Arc;

use keyd_core::Failure;
use keyd_x509::Certificate;
use tonic::{Request, Response, Status};

use crate::entry::Entry;
use crate::proto::workload as api;
use crate::proto::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use crate::serve::stream::{Responses, View};
use crate::serve::{Desk, peer, view};
use crate::snapshot::{Bundle, Snapshot};
use crate::svid::{Shared, SvidKey};

/// Without it a call may come from a browser or proxy that was led here (Workload API §4.1).
const HEADER: &str = "workload.spiffe.io";

#[tonic::async_trait]
impl SpiffeWorkloadApi for Desk {
    type FetchX509SVIDStream = Responses<api::X509svidResponse>;
    type FetchX509BundlesStream = Responses<api::X509BundlesResponse>;
    type FetchJWTBundlesStream = Responses<api::JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<api::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        meant(&request)?;
        Ok(self.follow(peer(&request)?, Svids))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<api::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        meant(&request)?;
        Ok(self.follow(peer(&request)?, Bundles))
    }

    async fn fetch_jwtsvid(
        &self,
        _request: Request<api::JwtsvidRequest>,
    ) -> Result<Response<api::JwtsvidResponse>, Status> {
        Err(no_jwt())
    }

    async fn fetch_jwt_bundles(
        &self,
        _request: Request<api::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(no_jwt())
    }

    async fn validate_jwtsvid(
        &self,
        _request: Request<api::ValidateJwtsvidRequest>,
    ) -> Result<Response<api::ValidateJwtsvidResponse>, Status> {
        Err(no_jwt())
    }
}

fn meant<T>(request: &Request<T>) -> Result<(), Status> {
    match request.metadata().get(HEADER).map(|value| value.as_bytes()) {
        Some(b"true") => Ok(()),
        _ => Err(Status::invalid_argument("security header missing from request: workload.spiffe.io: true")),
    }
}

fn no_jwt() -> Status {
    Status::unimplemented("keyd-agent issues no JWT-SVIDs: they cannot be post-quantum yet. Use X.509-SVIDs")
}

// === the caller's SVIDs ===

struct Svids;

/// An entry and its SVID.
type Named = (Arc<Entry>, Shared);

/// SVIDs, the own bundle, and federated ones by the id of their trust domain.
struct SeenSvids {
    svids: Vec<Named>,
    bundle: Bundle,
    federated: Vec<(String, Bundle)>,
}

impl View for Svids {
    type Seen = SeenSvids;
    type Message = api::X509svidResponse;

    fn see(&self, snapshot: &Snapshot, entries: &[Arc<Entry>]) -> Result<Option<SeenSvids>, Failure> {
        let svids = view::svids(entries, snapshot)?;
        let bundle = snapshot.bundles.get(&snapshot.trust_domain).cloned().unwrap_or_default();
        Ok(Some(SeenSvids { svids, bundle, federated: federated(snapshot, entries) }))
    }

    fn say(seen: &SeenSvids) -> api::X509svidResponse {
        let bundle = concatenated(&seen.bundle);
        let svid = |(entry, svid): &Named| {
            let SvidKey::Memory(key) = &svid.key else { return None };
            Some(api::X509svid {
                spiffe_id: svid.spiffe_id.to_string(),
                x509_svid: concatenated(&svid.chain),
                x509_svid_key: key.expose().to_vec(),
                bundle: bundle.clone(),
                hint: entry.hint.clone(),
            })
        };
        api::X509svidResponse {
            svids: seen.svids.iter().filter_map(svid).collect(),
            crl: Vec::new(),
            federated_bundles: by_id(&seen.federated),
        }
    }
}

impl PartialEq for SeenSvids {
    fn eq(&self, other: &Self) -> bool {
        let same = |((e, s), (f, t)): (&Named, &Named)| Arc::ptr_eq(s, t) && e.hint == f.hint;
        self.svids.len() == other.svids.len()
            && self.svids.iter().zip(&other.svids).all(same)
            && self.bundle == other.bundle
            && self.federated == other.federated
    }
}

// === bundles ===

struct Bundles;

impl View for Bundles {
    type Seen = Vec<(String, Bundle)>;
    type Message = api::X509BundlesResponse;

    fn see(&self, snapshot: &Snapshot, entries: &[Arc<Entry>]) -> Result<Option<Self::Seen>, Failure> {
        let own = snapshot.bundles.get(&snapshot.trust_domain).cloned().unwrap_or_default();
        let mut seen = federated(snapshot, entries);
        seen.push((snapshot.trust_domain.id().to_string(), own));
        Ok(Some(seen))
    }

    fn say(seen: &Self::Seen) -> api::X509BundlesResponse {
        api::X509BundlesResponse { crl: Vec::new(), bundles: by_id(seen) }
    }
}

/// The bundles of the trust domains that these entries federate with, sorted.
fn federated(snapshot: &Snapshot, entries: &[Arc<Entry>]) -> Vec<(String, Bundle)> {
    let wanted = |name| entries.iter().any(|entry| entry.federates_with.contains(name));
    let bundles = snapshot.bundles.iter().filter(|(name, _)| wanted(name));
    bundles.map(|(name, bundle)| (name.id().to_string(), Arc::clone(bundle))).collect()
}

fn by_id(bundles: &[(String, Bundle)]) -> HashMap<String, Vec<u8>> {
    bundles.iter().map(|(id, bundle)| (id.clone(), concatenated(bundle))).collect()
}

fn concatenated(certificates: &[Certificate]) -> Vec<u8> {
    certificates.iter().flat_map(|c| c.der().iter().copied()).collect()
}
