//! What the agent serves on its socket: the SPIFFE Workload API, `keyd.agent.v1` and the operator's view.

mod admin;
mod identity;
mod stream;
mod view;
mod workload_api;

use std::sync::Arc;
use std::time::SystemTime;

use keyd_api::agent::v1::identity_service_server::IdentityServiceServer;
use keyd_api::{ENVELOPE, MESSAGE_LIMIT};
use tokio::sync::watch;
use tonic::transport::server::Router;
use tonic::{Request, Status};

use crate::manager::{Asks, Health, Told};
use crate::proto::admin::admin_service_server::AdminServiceServer;
use crate::proto::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use crate::snapshot::Snapshot;
use crate::workload::Peer;

pub use admin::About;

/// Most calls at once on one connection.
const CALLS: usize = 64;

/// What every service shares.
#[derive(Clone)]
pub struct Desk {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    health: watch::Receiver<Health>,
    asks: Arc<Asks>,
    about: Arc<About>,
}

impl Desk {
    /// Serves what a manager tells.
    pub fn new(told: Told, about: About) -> Self {
        let Told { snapshot, health, asks } = told;
        Self { snapshot, health, asks, about: Arc::new(about) }
    }

    /// A gRPC router with all services.
    pub fn router(self) -> Router {
        tonic::transport::Server::builder()
            .concurrency_limit_per_connection(CALLS)
            .add_service(SpiffeWorkloadApiServer::new(self.clone()))
            .add_service(
                IdentityServiceServer::new(self.clone()).max_decoding_message_size(MESSAGE_LIMIT + ENVELOPE),
            )
            .add_service(AdminServiceServer::new(self))
    }
}

/// Who is at the other end.
fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Peer>();
    peer.cloned().ok_or_else(|| Status::permission_denied("the kernel does not say who is calling"))
}

/// Seconds since 1970-01-01T00:00:00Z.
fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
