//! The agent's half: has keyd's TPM do what the server asks for.

use std::time::Duration;

use keyd_api::status::from_failure;
use keyd_api::{Client, Endorsement, KeyInfo, Quote};
use keyd_attest::{ANSWER_DEADLINE, Payload, PcrValues, node};
use keyd_core::{Failure, Namespace, Reason};
use plugin_sdk::Deadline;
use plugin_sdk::proto::nodeattestor::agent::payload_or_challenge_response::Data;
use plugin_sdk::proto::nodeattestor::agent::{Challenge, PayloadOrChallengeResponse};
use tonic::Status;

use crate::conversation::Conversation;

/// The agent's two key slots. It makes a key in one of them before it attests, and does not say in which.
const SLOTS: [&str; 2] = ["agent-svid-A", "agent-svid-B"];

/// How long keyd and its TPM may take for one step.
const STEP: Duration = Duration::from_secs(30);

/// What the agent's half works with.
pub(crate) struct Agent {
    pub(crate) keyd: Client,
    pub(crate) namespace: Namespace,
}

impl Agent {
    pub(crate) async fn aid(
        &self,
        mut spire: Conversation<Challenge, PayloadOrChallengeResponse>,
    ) -> Result<(), Status> {
        let payload = self.payload().await.map_err(|f| from_failure(&f))?;
        let (state, bytes) = node::begin(&payload);
        spire.send(PayloadOrChallengeResponse { data: Some(Data::Payload(bytes)) }).await?;
        let challenge = spire.receive(ANSWER_DEADLINE).await?.challenge;
        let response = self.answer(state, &challenge).await.map_err(|f| from_failure(&f))?;
        spire.send(PayloadOrChallengeResponse { data: Some(Data::ChallengeResponse(response)) }).await?;
        // The agent ends the stream once the server has judged.
        let _ = spire.receive(ANSWER_DEADLINE).await;
        Ok(())
    }

    /// Who the TPM is, and which keys the agent may have certified.
    async fn payload(&self) -> Result<Payload, Failure> {
        let deadline = Deadline::after(STEP);
        let endorsement = deadline.call(&self.keyd, |keyd| async move { keyd.endorsement().await }).await?;
        let Endorsement { ek_certificate, ek_public, ak_public, .. } = endorsement;
        let namespace = &self.namespace;
        let keys = deadline.call(&self.keyd, |keyd| async move { keyd.list_keys(Some(namespace)).await });
        let slot = |key: &KeyInfo| key.key.namespace == *namespace && SLOTS.contains(&key.key.name.as_str());
        let keys: Vec<_> =
            keys.await?.iter().filter(|k| slot(k)).map(|k| k.public_key.fingerprint()).collect();
        if keys.is_empty() {
            return Err(Failure::new(
                Reason::KeyNotFound,
                format!(
                    "namespace {namespace} has no key {} or {}. The agent's KeyManager must be keyd's too, with the same namespace",
                    SLOTS[0], SLOTS[1]
                ),
            ));
        }
        Ok(Payload::new(ek_certificate, ek_public, &ak_public, keys)?)
    }

    /// Activates the credential, quotes, and puts the answer together.
    async fn answer(&self, state: node::AwaitChallenge, challenge: &[u8]) -> Result<Vec<u8>, Failure> {
        let deadline = Deadline::after(STEP);
        let (state, credential) = state.challenge(challenge)?;
        let activation = deadline.call(&self.keyd, |keyd| {
            let credential = credential.clone();
            async move { keyd.activate_credential(credential.id_object, credential.encrypted_secret).await }
        });
        let (state, request) = state.secret(&activation.await?);
        let request = &request;
        let quote = deadline.call(&self.keyd, |keyd| async move {
            keyd.quote(&request.pcrs, request.qualifying_data.clone()).await
        });
        let Quote { attest, signature, pcrs } = quote.await?;
        Ok(state.quote(attest, signature, PcrValues::new(pcrs)?)?)
    }
}
