//! `keyd.v1.AdminService`.

use std::sync::Arc;

use keyd_api::v1;
use keyd_api::v1::admin_service_server::AdminService;
use keyd_core::{Failure, Health, Operation};
use keyd_pkcs11::Token;
use keyd_unix::off_worker;
use tonic::{Request, Response, Status};

use super::each::{Told, each};
use super::tpm::no_tpm;
use super::{Services, refuse, reseal};
use crate::doctor;
use crate::keyring::CaKey;
use crate::metrics::Snapshot;
use crate::places::Places;

/// What status needs beyond the keyring.
pub struct Admin {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub started_at: i64,
    /// Whether secrets cannot be swapped out.
    pub memory_locked: bool,
    /// The token, for what only a token can tell.
    pub token: Option<Arc<Token>>,
    /// The devices to ask.
    pub places: Places,
}

#[tonic::async_trait]
impl AdminService for Services {
    async fn ping(&self, _: Request<v1::PingRequest>) -> Result<Response<v1::PingResponse>, Status> {
        let services = self.clone();
        off_worker(move || {
            let _rules = services.rules.now();
            Ok::<_, Failure>(services.keyring.count())
        })
        .await
        .map_err(refuse)?;
        Ok(Response::new(v1::PingResponse {}))
    }

    async fn doctor(
        &self,
        request: Request<v1::DoctorRequest>,
    ) -> Result<Response<v1::DoctorResponse>, Status> {
        self.permit_node(&request, Operation::Status).await.map_err(refuse)?;
        let rules = self.rules.now();
        let sealed_pin = rules.config.token.as_ref().and_then(|token| token.pin_sealed.as_deref());
        let mut findings =
            doctor::examine(&self.keyring, &self.admin.places, self.tpm.as_deref(), sealed_pin).await;
        findings.extend(doctor::audit_log(&self.checkpoints.standing().await));
        Ok(Response::new(v1::DoctorResponse { findings }))
    }

    async fn metrics(
        &self,
        request: Request<v1::MetricsRequest>,
    ) -> Result<Response<v1::MetricsResponse>, Status> {
        self.permit_node(&request, Operation::Status).await.map_err(refuse)?;
        let openmetrics = self.keyring.metrics().text(&self.snapshot().await).map_err(refuse)?;
        Ok(Response::new(v1::MetricsResponse { openmetrics }))
    }

    async fn remove_orphan(
        &self,
        request: Request<v1::RemoveOrphanRequest>,
    ) -> Result<Response<v1::RemoveOrphanResponse>, Status> {
        let origin = self.permit_node(&request, Operation::Repair).await.map_err(refuse)?;
        let object = request.into_inner().object.to_vec();
        let label = self.keyring.remove_orphan(origin, object).await.map_err(refuse)?;
        Ok(Response::new(v1::RemoveOrphanResponse { label }))
    }

    type ResealStream = Told;

    async fn reseal(
        &self,
        request: Request<v1::ResealRequest>,
    ) -> Result<Response<Self::ResealStream>, Status> {
        let origin = self.permit_node(&request, Operation::Reseal).await.map_err(refuse)?;
        let request = request.into_inner();
        let expected: Arc<[_]> = reseal::expected(request.expected).map_err(refuse)?.into();
        let tpm = Arc::new(self.tpm.as_ref().ok_or_else(|| refuse(no_tpm()))?.in_background());
        // What cannot be asked for is refused once, and not key by key.
        tpm.examine(Vec::new(), &expected).await.map_err(refuse)?;
        let keys = self.keyring.sealed_by_tpm();
        let keys = keys.into_iter().map(|key| (key.record.id.clone(), ())).collect();
        let (keyring, dry_run) = (self.keyring.clone(), request.dry_run);
        let reseal = move |id, ()| {
            let (keyring, tpm, expected) = (keyring.clone(), Arc::clone(&tpm), Arc::clone(&expected));
            async move { keyring.reseal(origin, id, tpm, expected, dry_run).await }
        };
        Ok(Response::new(each(keys, "resealed", reseal)))
    }

    async fn audit_log(
        &self,
        request: Request<v1::AuditLogRequest>,
    ) -> Result<Response<v1::AuditLogResponse>, Status> {
        self.answer_audit_log(request).await.map(Response::new).map_err(refuse)
    }

    async fn audit_head(
        &self,
        request: Request<v1::AuditHeadRequest>,
    ) -> Result<Response<v1::AuditHeadResponse>, Status> {
        self.answer_audit_head(request).await.map(Response::new).map_err(refuse)
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        self.permit_node(&request, Operation::Status).await.map_err(refuse)?;
        let admin = &self.admin;
        let mut devices = Vec::new();
        if let Some(vault) = &admin.places.vault {
            devices.push(device(vault.health().await));
        }
        if let Some(tpm) = &admin.places.tpm {
            devices.push(device(tpm.health().await));
        }
        let rules = self.rules.now();
        let namespaces = rules.config.namespaces().map(|n| v1::NamespaceStatus {
            namespace: n.name.to_string(),
            protections: n.protections.iter().map(ToString::to_string).collect(),
            keys: u32::try_from(self.keyring.list(&n.name).len()).unwrap_or(u32::MAX),
        });
        Ok(Response::new(v1::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: admin.started_at,
            devices,
            namespaces: namespaces.collect(),
            memory_locked: admin.memory_locked,
            profile: rules.config.profile.map(|profile| profile.name().to_owned()).unwrap_or_default(),
            keys_outside_profile: u32::try_from(self.keyring.outside_profile().len()).unwrap_or(u32::MAX),
            ca_keys: self.keyring.ca_keys().into_iter().map(ca_key).collect(),
        }))
    }
}

impl Services {
    async fn snapshot(&self) -> Snapshot {
        let Admin { started_at, token, places, .. } = &*self.admin;
        let mut snapshot = Snapshot::new(*started_at);
        for key in self.keyring.all() {
            snapshot.key(&key.record);
        }
        if let Some(vault) = &places.vault {
            snapshot.device("token", &vault.health().await);
        }
        if let Some(tpm) = &places.tpm {
            snapshot.device("tpm", &tpm.health().await);
        }
        if let Some(token) = token {
            snapshot.worker_starts(token.worker_starts());
        }
        snapshot
    }
}

fn ca_key(ca: CaKey) -> v1::CaKey {
    let record = &ca.key.record;
    v1::CaKey {
        key: record.id.to_string(),
        algorithm: record.algorithm.to_string(),
        guarded: ca.unguarded.is_none(),
        detail: ca.unguarded.unwrap_or_default().to_owned(),
    }
}

fn device(health: Health) -> v1::Device {
    v1::Device { device: health.device, state: health.state.name().to_owned(), detail: health.detail }
}
