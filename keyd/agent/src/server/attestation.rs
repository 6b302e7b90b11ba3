//! The stream on which a node attests.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::error::AgentError;
use crate::proto::agent::agent_client::AgentClient;
use crate::proto::agent::attest_agent_request::{self, Params};
use crate::proto::agent::attest_agent_response::{self, Result as Attested};
use crate::proto::agent::{AgentX509svidParams, AttestAgentRequest, AttestAgentResponse};
use crate::proto::types::AttestationData;
use crate::server::calls::answer_in_time;
use crate::server::{SpireServer, refusal};

const CALL: &str = "AttestAgent";
/// How long the server may take for each of its messages; it lets agents of one address attest once a second, the
/// others wait.
const STEP: Duration = Duration::from_secs(60);

/// An attestation under way.
pub struct Attestation {
    address: String,
    requests: mpsc::Sender<AttestAgentRequest>,
    responses: Streaming<AttestAgentResponse>,
}

impl SpireServer {
    /// Begins an attestation of `kind` with its first `payload`, for the key in `csr` (PKCS#10, DER).
    ///
    /// # Errors
    /// Any [`AgentError`] of a call.
    pub async fn attest(
        &self,
        kind: &str,
        payload: Vec<u8>,
        csr: Vec<u8>,
    ) -> Result<Attestation, AgentError> {
        let address = self.address().to_owned();
        let (requests, stream) = mpsc::channel(1);
        let data = AttestationData { r#type: kind.to_owned(), payload };
        let params = Params { data: Some(data), params: Some(AgentX509svidParams { csr }) };
        send(&requests, attest_agent_request::Step::Params(params)).await?;
        let mut client = AgentClient::new(self.unknown_channel());
        let call = client.attest_agent(ReceiverStream::new(stream));
        let responses = answer_in_time(&address, CALL, STEP, call).await?;
        Ok(Attestation { address, requests, responses })
    }
}

impl Attestation {
    /// The server's challenge.
    ///
    /// # Errors
    /// Any [`AgentError`] of a call; [`AgentError::Answer`] where the server attests without one.
    pub async fn challenge(&mut self) -> Result<Vec<u8>, AgentError> {
        match self.next().await? {
            attest_agent_response::Step::Challenge(challenge) => Ok(challenge),
            attest_agent_response::Step::Result(_) => {
                Err(refused("it attests this node without a challenge; is its keyd_tpm attestor keyd's?"))
            }
        }
    }

    /// Sends the response to the challenge; the server's chain for the key of the request, DER, leaf first.
    ///
    /// # Errors
    /// Any [`AgentError`] of a call.
    pub async fn respond(mut self, response: Vec<u8>) -> Result<Vec<Vec<u8>>, AgentError> {
        send(&self.requests, attest_agent_request::Step::ChallengeResponse(response)).await?;
        match self.next().await? {
            attest_agent_response::Step::Result(Attested { svid: Some(svid), .. }) => Ok(svid.cert_chain),
            attest_agent_response::Step::Result(_) => Err(refused("no certificate")),
            attest_agent_response::Step::Challenge(_) => Err(refused("a second challenge")),
        }
    }

    async fn next(&mut self) -> Result<attest_agent_response::Step, AgentError> {
        let silent =
            AgentError::Silent { address: self.address.clone(), call: CALL, seconds: STEP.as_secs() };
        let message = tokio::time::timeout(STEP, self.responses.message()).await.map_err(|_| silent)?;
        let message = message.map_err(|status| refusal::error(&self.address, CALL, &status))?;
        message.and_then(|m| m.step).ok_or_else(|| refused("the stream ended early"))
    }
}

async fn send(
    requests: &mpsc::Sender<AttestAgentRequest>,
    step: attest_agent_request::Step,
) -> Result<(), AgentError> {
    let request = AttestAgentRequest { step: Some(step) };
    requests.send(request).await.map_err(|_| refused("the stream ended early"))
}

fn refused(why: &str) -> AgentError {
    AgentError::Answer { call: CALL, why: why.to_owned() }
}
