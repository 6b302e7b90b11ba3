//! The local API: who calls, whether he may, and the answer.

mod admin;
mod audit;
mod binding;
mod each;
mod escrow;
mod keys;
mod reseal;
mod tpm;

use std::sync::Arc;

use keyd_api::{ENVELOPE, MESSAGE_LIMIT, WINDOW, status, v1};
use keyd_audit::{Draft, Event, Origin};
use keyd_core::{Caller, Failure, Namespace, Operation, Reason};
use tonic::transport::server::{Router, UdsConnectInfo};
use tonic::{Request, Status};
use tower::layer::util::{Identity, Stack};

pub use admin::Admin;
pub use binding::Bindings;

use crate::checkpoints::Checkpoints;
use crate::in_force::InForce;
use crate::journal::Journal;
use crate::keyring::{Keyring, unknown_namespace};
use crate::limits::CallsPerUser;
use crate::metrics::Limit;

/// What every service shares.
#[derive(Clone)]
pub struct Services {
    rules: InForce,
    keyring: Keyring,
    journal: Journal,
    checkpoints: Checkpoints,
    tpm: Option<Arc<keyd_tpm::Tpm>>,
    bindings: Arc<Bindings>,
    admin: Arc<Admin>,
    /// One escrow at a time.
    escrow: Arc<tokio::sync::Mutex<()>>,
}

impl Services {
    /// The services over these parts.
    pub fn new(
        rules: InForce,
        keyring: Keyring,
        log: (Journal, Checkpoints),
        tpm: Option<Arc<keyd_tpm::Tpm>>,
        admin: Admin,
    ) -> Self {
        let (journal, checkpoints) = log;
        Self {
            rules,
            keyring,
            journal,
            checkpoints,
            tpm,
            bindings: Arc::default(),
            admin: Arc::new(admin),
            escrow: Arc::default(),
        }
    }

    /// A gRPC router with all of them.
    pub fn router(&self, calls_per_user: usize) -> Router<Stack<CallsPerUser, Identity>> {
        const LIMIT: usize = MESSAGE_LIMIT + ENVELOPE;
        tonic::transport::Server::builder()
            .layer(CallsPerUser::new(calls_per_user, self.keyring.metrics().limited(Limit::CallsPerUser)))
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .add_service(
                v1::key_service_server::KeyServiceServer::new(self.clone()).max_decoding_message_size(LIMIT),
            )
            .add_service(
                v1::tpm_service_server::TpmServiceServer::new(self.clone()).max_decoding_message_size(LIMIT),
            )
            .add_service(
                v1::binding_service_server::BindingServiceServer::new(self.clone())
                    .max_decoding_message_size(LIMIT),
            )
            .add_service(
                v1::escrow_service_server::EscrowServiceServer::new(self.clone())
                    .max_decoding_message_size(LIMIT),
            )
            .add_service(
                v1::admin_service_server::AdminServiceServer::new(self.clone())
                    .max_decoding_message_size(LIMIT),
            )
    }

    /// Whether the caller of this request may do `operation` with `namespace`; says who that is.
    ///
    /// # Errors
    /// [`Reason::Denied`], which is recorded, or [`Reason::UnknownNamespace`].
    async fn permit<T>(
        &self,
        request: &Request<T>,
        operation: Operation,
        namespace: &Namespace,
    ) -> Result<Origin, Failure> {
        let caller = caller(request)?;
        let rules = self.rules.now();
        let denied = rules.policy.check(&caller, operation, namespace);
        // Who may do this elsewhere has mistyped the name, and is shown one of those. A stranger is not told which there are.
        if denied.is_err()
            && rules.policy.check_node(&caller, operation).is_ok()
            && rules.config.protections(namespace).is_none()
        {
            return Err(unknown_namespace(namespace, rules.open_to(&caller, operation)));
        }
        self.recorded(denied, &caller, operation, Some(namespace)).await
    }

    /// Whether the caller of this request may do `operation`, which is about the node; says who that is.
    ///
    /// # Errors
    /// [`Reason::Denied`], which is recorded.
    async fn permit_node<T>(&self, request: &Request<T>, operation: Operation) -> Result<Origin, Failure> {
        let caller = caller(request)?;
        let denied = self.rules.now().policy.check_node(&caller, operation);
        self.recorded(denied, &caller, operation, None).await
    }

    async fn recorded(
        &self,
        denied: Result<(), Failure>,
        caller: &Caller,
        operation: Operation,
        namespace: Option<&Namespace>,
    ) -> Result<Origin, Failure> {
        let origin = Origin::from(caller);
        let Err(failure) = denied else { return Ok(origin) };
        let namespace = namespace.cloned();
        self.keyring.metrics().denied(operation);
        tracing::warn!(uid = caller.uid, pid = caller.pid, %operation, namespace = namespace.as_ref().map(Namespace::as_str), "denied");
        let event = Event::Denied { operation, namespace, count: 1 };
        self.journal.repeated(Draft::failed(origin, event, failure.reason)).await;
        Err(failure)
    }
}

/// Who is at the other end, as the kernel says.
fn caller<T>(request: &Request<T>) -> Result<Caller, Failure> {
    request
        .extensions()
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred)
        .map(|cred| Caller { uid: cred.uid(), gids: [cred.gid()].into(), pid: cred.pid() })
        .ok_or_else(|| Failure::new(Reason::Denied, "the kernel does not say who is calling"))
}

/// An empty string is "not given".
fn optional<T: std::str::FromStr<Err = Failure>>(text: &str) -> Result<Option<T>, Failure> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

fn refuse(failure: Failure) -> Status {
    if status::code(failure.reason) == tonic::Code::Internal {
        tracing::error!(reason = failure.reason.name(), %failure, "call failed");
    }
    status::from_failure(&failure)
}
