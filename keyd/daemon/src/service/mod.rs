//! The local API: who calls, whether he may, and the answer.

mod admin;
mod binding;
mod keys;
mod reseal;
mod tpm;

use std::sync::Arc;

use keyd_api::{ENVELOPE, MESSAGE_LIMIT, WINDOW, status, v1};
use keyd_core::{Caller, Failure, Namespace, Operation, Reason};
use tonic::transport::server::{Router, UdsConnectInfo};
use tonic::{Request, Status};
use tower::layer::util::{Identity, Stack};

pub use admin::Admin;
pub use binding::Bindings;

use crate::in_force::InForce;
use crate::keyring::{Keyring, unknown_namespace};
use crate::limits::CallsPerUser;

/// What every service shares.
#[derive(Clone)]
pub struct Services {
    rules: InForce,
    keyring: Keyring,
    tpm: Option<Arc<keyd_tpm::Tpm>>,
    bindings: Arc<Bindings>,
    admin: Arc<Admin>,
}

impl Services {
    /// The services over these parts.
    pub fn new(rules: InForce, keyring: Keyring, tpm: Option<Arc<keyd_tpm::Tpm>>, admin: Admin) -> Self {
        Self { rules, keyring, tpm, bindings: Arc::default(), admin: Arc::new(admin) }
    }

    /// A gRPC router with all of them.
    pub fn router(&self, calls_per_user: usize) -> Router<Stack<CallsPerUser, Identity>> {
        const LIMIT: usize = MESSAGE_LIMIT + ENVELOPE;
        tonic::transport::Server::builder()
            .layer(CallsPerUser::new(calls_per_user))
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
                v1::admin_service_server::AdminServiceServer::new(self.clone())
                    .max_decoding_message_size(LIMIT),
            )
    }

    /// Whether the caller of this request may do `operation` with `namespace`.
    fn permit<T>(
        &self,
        request: &Request<T>,
        operation: Operation,
        namespace: &Namespace,
    ) -> Result<(), Failure> {
        let caller = caller(request)?;
        let rules = self.rules.now();
        let denied = rules.policy.check(&caller, operation, namespace);
        // Who may do this elsewhere has mistyped the name. A stranger is not told which namespaces there are.
        if denied.is_err()
            && rules.policy.check_node(&caller, operation).is_ok()
            && rules.config.protections(namespace).is_none()
        {
            return Err(unknown_namespace(namespace));
        }
        denied.inspect_err(|_| {
            self.keyring.metrics().denied(operation);
            tracing::warn!(uid = caller.uid, pid = caller.pid, %operation, %namespace, "denied");
        })
    }

    /// Whether the caller of this request may do `operation`, which is about the node.
    fn permit_node<T>(&self, request: &Request<T>, operation: Operation) -> Result<(), Failure> {
        let caller = caller(request)?;
        self.rules.now().policy.check_node(&caller, operation).inspect_err(|_| {
            self.keyring.metrics().denied(operation);
            tracing::warn!(uid = caller.uid, pid = caller.pid, %operation, "denied");
        })
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

fn refuse(failure: Failure) -> Status {
    if status::code(failure.reason) == tonic::Code::Internal {
        tracing::error!(reason = failure.reason.name(), %failure, "call failed");
    }
    status::from_failure(&failure)
}
