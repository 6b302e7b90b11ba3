//! The gRPC services.

use plugin_sdk::proto::nodeattestor::agent::node_attestor_server::NodeAttestor as AgentNodeAttestor;
use plugin_sdk::proto::nodeattestor::agent::{Challenge, PayloadOrChallengeResponse};
use plugin_sdk::proto::nodeattestor::server::node_attestor_server::NodeAttestor;
use plugin_sdk::proto::nodeattestor::server::{AttestRequest, AttestResponse};
use plugin_sdk::{Configured, Responses};
use tonic::{Request, Response, Status, Streaming};

use crate::Half;
use crate::conversation::Conversation;

#[derive(Clone)]
pub(crate) struct NodeAttestorService(pub(crate) Configured<Half>);

#[tonic::async_trait]
impl NodeAttestor for NodeAttestorService {
    type AttestStream = Responses<AttestResponse>;

    async fn attest(
        &self,
        request: Request<Streaming<AttestRequest>>,
    ) -> Result<Response<Self::AttestStream>, Status> {
        let half = self.0.plugin()?;
        let responses = Conversation::begin(request.into_inner(), |spire| async move {
            match &*half {
                Half::Server(server) => server.attest(spire).await,
                Half::Agent(_) => Err(Status::failed_precondition(
                    "plugin_data is an agent's: a server has no namespace, but ek_roots, enrolled or both",
                )),
            }
        });
        Ok(Response::new(responses))
    }
}

#[tonic::async_trait]
impl AgentNodeAttestor for NodeAttestorService {
    type AidAttestationStream = Responses<PayloadOrChallengeResponse>;

    async fn aid_attestation(
        &self,
        request: Request<Streaming<Challenge>>,
    ) -> Result<Response<Self::AidAttestationStream>, Status> {
        let half = self.0.plugin()?;
        let responses = Conversation::begin(request.into_inner(), |spire| async move {
            match &*half {
                Half::Agent(agent) => agent.aid(spire).await,
                Half::Server(_) => Err(Status::failed_precondition(
                    "plugin_data is a server's: an agent has a namespace, that of its KeyManager",
                )),
            }
        });
        Ok(Response::new(responses))
    }
}
