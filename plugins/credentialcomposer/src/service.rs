//! The gRPC service.

use plugin_sdk::proto::credentialcomposer::credential_composer_server::CredentialComposer;
use plugin_sdk::proto::credentialcomposer::{
    ComposeAgentX509svidRequest, ComposeAgentX509svidResponse, ComposeServerX509caRequest,
    ComposeServerX509caResponse, ComposeServerX509svidRequest, ComposeServerX509svidResponse,
    ComposeWorkloadJwtsvidRequest, ComposeWorkloadJwtsvidResponse, ComposeWorkloadX509svidRequest,
    ComposeWorkloadX509svidResponse,
};
use plugin_sdk::{Configured, Deadline};
use tonic::{Request, Response, Status};

use crate::{Composer, binding, key_usage};

pub(crate) struct CredentialComposerService(pub(crate) Configured<Composer>);

#[tonic::async_trait]
impl CredentialComposer for CredentialComposerService {
    /// Also on renewal, which SPIRE makes an attestation for these agents.
    async fn compose_agent_x509svid(
        &self,
        request: Request<ComposeAgentX509svidRequest>,
    ) -> Result<Response<ComposeAgentX509svidResponse>, Status> {
        let deadline = Deadline::of(&request);
        let ComposeAgentX509svidRequest { attributes, spiffe_id, public_key } = request.into_inner();
        let mut attributes = attributes.unwrap_or_default();
        key_usage::correct(&mut attributes, &public_key)?;
        binding::redeem(&self.0.plugin()?.keyd, &spiffe_id, &public_key, deadline).await?;
        Ok(Response::new(ComposeAgentX509svidResponse { attributes: Some(attributes) }))
    }

    async fn compose_workload_x509svid(
        &self,
        request: Request<ComposeWorkloadX509svidRequest>,
    ) -> Result<Response<ComposeWorkloadX509svidResponse>, Status> {
        let ComposeWorkloadX509svidRequest { attributes, public_key, .. } = request.into_inner();
        let mut attributes = attributes.unwrap_or_default();
        key_usage::correct(&mut attributes, &public_key)?;
        Ok(Response::new(ComposeWorkloadX509svidResponse { attributes: Some(attributes) }))
    }

    /// SPIRE does not say which key its own CA has; the UpstreamAuthority sees to that certificate.
    async fn compose_server_x509ca(
        &self,
        request: Request<ComposeServerX509caRequest>,
    ) -> Result<Response<ComposeServerX509caResponse>, Status> {
        let attributes = request.into_inner().attributes;
        Ok(Response::new(ComposeServerX509caResponse { attributes }))
    }

    /// The server's own key is always an elliptic curve's.
    async fn compose_server_x509svid(
        &self,
        request: Request<ComposeServerX509svidRequest>,
    ) -> Result<Response<ComposeServerX509svidResponse>, Status> {
        let attributes = request.into_inner().attributes;
        Ok(Response::new(ComposeServerX509svidResponse { attributes }))
    }

    async fn compose_workload_jwtsvid(
        &self,
        request: Request<ComposeWorkloadJwtsvidRequest>,
    ) -> Result<Response<ComposeWorkloadJwtsvidResponse>, Status> {
        let attributes = request.into_inner().attributes;
        Ok(Response::new(ComposeWorkloadJwtsvidResponse { attributes }))
    }
}
