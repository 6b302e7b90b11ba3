//! The server's half: judges, and leaves with keyd which keys may be certified.

use std::time::Duration;

use keyd_api::Client;
use keyd_api::status::from_failure;
use keyd_attest::{ANSWER_DEADLINE, Attested, Fresh, Payload, Refusal};
use keyd_core::{Failure, Reason};
use plugin_sdk::Deadline;
use plugin_sdk::proto::nodeattestor::server::attest_request::Request;
use plugin_sdk::proto::nodeattestor::server::attest_response::Response;
use plugin_sdk::proto::nodeattestor::server::{AgentAttributes, AttestRequest, AttestResponse};
use rustls_pki_types::UnixTime;
use tonic::Status;

use crate::conversation::Conversation;
use crate::policy::PolicyFiles;

/// How long SPIRE may take to pass the payload on, and keyd to note the binding.
const STEP: Duration = Duration::from_secs(30);

/// What the server's half works with.
pub(crate) struct Server {
    pub(crate) keyd: Client,
    pub(crate) trust_domain: String,
    pub(crate) files: PolicyFiles,
}

impl Server {
    pub(crate) async fn attest(
        &self,
        mut spire: Conversation<AttestRequest, AttestResponse>,
    ) -> Result<(), Status> {
        let Some(Request::Payload(payload)) = spire.receive(STEP).await?.request else {
            return Err(Status::invalid_argument("an attestation begins with its payload"));
        };
        let payload = Payload::decode(&payload).map_err(|refusal| refuse("unknown", refusal))?;
        let ek = hex::encode(payload.ek.sha256());

        let verifier = self.files.verifier().await.map_err(|failure| unable(&ek, &failure))?;
        let fresh = Fresh::generate().map_err(|refusal| refuse(&ek, refusal))?;
        let begun = verifier.begin(&payload, UnixTime::now(), fresh);
        let (pending, challenge) = begun.map_err(|refusal| refuse(&ek, refusal))?;
        spire.send(AttestResponse { response: Some(Response::Challenge(challenge)) }).await?;

        let Some(Request::ChallengeResponse(response)) = spire.receive(ANSWER_DEADLINE).await?.request else {
            return Err(Status::invalid_argument("a challenge is answered by its response"));
        };
        let attested = pending.verify(&response, UnixTime::now()).map_err(|refusal| refuse(&ek, refusal))?;
        let attributes = self.bind(&ek, attested).await.map_err(|failure| unable(&ek, &failure))?;
        spire.send(AttestResponse { response: Some(Response::AgentAttributes(attributes)) }).await
    }

    /// Leaves the attested keys with keyd before SPIRE hears of the agent: the CredentialComposer asks for them next.
    async fn bind(&self, ek: &str, attested: Attested) -> Result<AgentAttributes, Failure> {
        let Attested { agent_path, selectors, keys, node } = attested;
        let spiffe_id = format!("spiffe://{}{agent_path}", self.trust_domain);
        let (id, keys) = (&spiffe_id, &keys);
        let bound =
            Deadline::after(STEP).call(&self.keyd, |keyd| async move { keyd.bind_agent(id, keys).await });
        bound.await?;
        tracing::info!(ek, node, "Attested a TPM");
        // Renewal goes through another attestation, which binds the new key.
        Ok(AgentAttributes { spiffe_id, selector_values: selectors, can_reattest: true })
    }
}

/// The node is refused, and told why: it is about what the node itself sent.
fn refuse(ek: &str, refusal: Refusal) -> Status {
    tracing::warn!(ek, %refusal, "Refused a TPM");
    match Failure::from(refusal) {
        Failure { reason: Reason::Internal, message } => Status::internal(message),
        Failure { message, .. } => Status::permission_denied(message),
    }
}

/// The server cannot judge; what is wrong with it is for its own log.
fn unable(ek: &str, failure: &Failure) -> Status {
    tracing::error!(ek, %failure, "Cannot attest a TPM");
    Status::new(from_failure(failure).code(), "the server cannot attest TPMs now; its log says why")
}
