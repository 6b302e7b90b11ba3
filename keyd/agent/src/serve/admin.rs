//! The operator's view.

use std::time::SystemTime;

use tonic::{Request, Response, Status};

use crate::proto::admin::admin_service_server::AdminService;
use crate::proto::admin::{StatusRequest, StatusResponse, Svid};
use crate::serve::{Desk, peer, unix_seconds};
use crate::svid::Custody;

/// What stays the same while the agent runs.
#[derive(Clone, Debug)]
pub struct About {
    /// When it started.
    pub started_at: SystemTime,
    /// Where its server is.
    pub server_address: String,
    /// Whether secrets cannot be swapped out.
    pub memory_locked: bool,
}

#[tonic::async_trait]
impl AdminService for Desk {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let uid = peer(&request)?.uid;
        if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
            return Err(Status::permission_denied("the state of the agent is for root and for its own user"));
        }
        let (snapshot, health) = (self.snapshot.borrow().clone(), self.health.borrow().clone());
        let now = SystemTime::now();
        let workloads = snapshot.entries().iter().flat_map(|entry| {
            let held = [Custody::Memory, Custody::Keyd].map(|c| snapshot.svid(&entry.id, c, now));
            held.into_iter().flatten().map(|svid| Svid {
                spiffe_id: svid.spiffe_id.to_string(),
                hint: entry.hint.clone(),
                key: svid.keyd_key().map(|key| key.id().to_string()).unwrap_or_default(),
                not_after: unix_seconds(svid.lifetime.not_after),
            })
        });
        let own = health.own.map(|own| Svid {
            spiffe_id: own.id.to_string(),
            hint: String::new(),
            key: own.key.id().to_string(),
            not_after: unix_seconds(own.lifetime.not_after),
        });
        Ok(Response::new(StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: unix_seconds(self.about.started_at),
            server_address: self.about.server_address.clone(),
            agent: own,
            workloads: workloads.collect(),
            last_contact: health.last_contact.map(unix_seconds).unwrap_or_default(),
            trouble: health.trouble.unwrap_or_default(),
            memory_locked: self.about.memory_locked,
        }))
    }
}
