//! `keyd.v1.BindingService`: which key an attestation vouched for.
//!
//! SPIRE attests a node first and certifies its key afterwards, through two plugins. The first says here which keys the
//! attestation named; the second takes that word once. It is kept in memory for a short time: a node that comes too
//! late, or meets a restart of keyd in between, attests again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keyd_api::v1;
use keyd_api::v1::binding_service_server::BindingService;
use keyd_audit::{Draft, Event, Text};
use keyd_core::{Failure, Operation, Reason};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Services, refuse};

/// How long a binding waits for its certificate.
const LIFETIME: Duration = Duration::from_secs(60);
/// Most bindings at once; more agents than that do not attest within a minute.
const MOST: usize = 10_000;
/// Most keys that one attestation may name: the stock agent has two slots.
const KEYS: usize = 2;
/// Longest agent id, in bytes (SPIFFE-ID §2.3).
const AGENT_ID_LIMIT: usize = 2048;

/// The bindings that wait to be redeemed.
#[derive(Debug, Default)]
pub struct Bindings {
    by_agent: Mutex<HashMap<String, Binding>>,
}

#[derive(Debug)]
struct Binding {
    keys: Vec<[u8; 32]>,
    until: Instant,
}

impl Bindings {
    /// Records that `agent` proved these keys, in place of what it proved before.
    ///
    /// # Errors
    /// [`Reason::LimitExceeded`] or [`Reason::BadRequest`].
    pub fn bind(&self, agent: String, keys: Vec<[u8; 32]>) -> Result<(), Failure> {
        if agent.len() > AGENT_ID_LIMIT || keys.is_empty() || keys.len() > KEYS {
            return Err(Failure::new(
                Reason::BadRequest,
                format!("a binding is of one agent and 1 to {KEYS} keys"),
            ));
        }
        let now = Instant::now();
        let mut by_agent = self.by_agent.lock().unwrap_or_else(PoisonError::into_inner);
        by_agent.retain(|_, binding| binding.until > now);
        if by_agent.len() >= MOST && !by_agent.contains_key(&agent) {
            return Err(Failure::new(
                Reason::LimitExceeded,
                format!("{MOST} attestations are under way; try again"),
            ));
        }
        by_agent.insert(agent, Binding { keys, until: now + LIFETIME });
        Ok(())
    }

    /// Takes the binding of `agent` if it names `key`; it is gone afterwards, whatever the answer.
    ///
    /// # Errors
    /// [`Reason::KeyNotFound`] where there is none, it has ended, or it names other keys.
    pub fn redeem(&self, agent: &str, key: &[u8; 32]) -> Result<(), Failure> {
        let taken = self.by_agent.lock().unwrap_or_else(PoisonError::into_inner).remove(agent);
        match taken {
            Some(binding) if binding.until > Instant::now() && binding.keys.contains(key) => Ok(()),
            Some(binding) if binding.until > Instant::now() => Err(Failure::new(
                Reason::KeyNotFound,
                format!("{agent} attested another key than the one to be certified"),
            )),
            _ => Err(Failure::new(
                Reason::KeyNotFound,
                format!(
                    "{agent} has not attested within the last {} s; it must attest again",
                    LIFETIME.as_secs()
                ),
            )),
        }
    }
}

#[tonic::async_trait]
impl BindingService for Services {
    async fn bind_agent(
        &self,
        request: Request<v1::BindAgentRequest>,
    ) -> Result<Response<v1::BindAgentResponse>, Status> {
        let bind = async {
            let origin = self.permit_node(&request, Operation::Bind).await?;
            let request = request.into_inner();
            let keys: Vec<_> = request.spki_sha256.iter().map(|h| hash(h)).collect::<Result<_, _>>()?;
            let named = keys.iter().take(KEYS).map(hex::encode).collect();
            let event = Event::AttestationBound { agent: Text::cut(&request.agent_id), keys: named };
            self.journal.append(vec![Draft::done(origin, event.clone())]).await?;
            let bound = self.bindings.bind(request.agent_id, keys);
            if let Err(failure) = &bound {
                self.journal.owe(Draft::failed(origin, event, failure.reason)).await;
            }
            bound
        };
        bind.await.map(|()| Response::new(v1::BindAgentResponse {})).map_err(refuse)
    }

    async fn redeem_binding(
        &self,
        request: Request<v1::RedeemBindingRequest>,
    ) -> Result<Response<v1::RedeemBindingResponse>, Status> {
        let redeem = async {
            let origin = self.permit_node(&request, Operation::Bind).await?;
            let request = request.into_inner();
            let key = hash(&request.spki_sha256)?;
            let redeemed = self.bindings.redeem(&request.agent_id, &key);
            let event = Event::AttestationRedeemed { agent: Text::cut(&request.agent_id), key };
            let draft = match &redeemed {
                Ok(()) => Draft::done(origin, event),
                Err(failure) => Draft::failed(origin, event, failure.reason),
            };
            self.journal.append(vec![draft]).await?;
            redeemed
        };
        redeem.await.map(|()| Response::new(v1::RedeemBindingResponse {})).map_err(refuse)
    }
}

fn hash(bytes: &[u8]) -> Result<[u8; 32], Failure> {
    bytes.try_into().map_err(|_| Failure::new(Reason::BadRequest, "a SHA-256 hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_binding_serves_one_key_once_and_not_for_long() {
        let bindings = Bindings::default();
        let agent = "spiffe://td/spire/agent/keyd_tpm/x";
        bindings.bind(agent.into(), vec![[1; 32], [2; 32]]).unwrap();
        assert!(bindings.redeem(agent, &[2; 32]).is_ok());
        assert!(bindings.redeem(agent, &[2; 32]).is_err(), "once");
        bindings.bind(agent.into(), vec![[1; 32]]).unwrap();
        assert!(bindings.redeem(agent, &[9; 32]).unwrap_err().message.contains("another key"));
        assert!(bindings.redeem(agent, &[1; 32]).is_err(), "a wrong guess uses it up");
        bindings.bind(agent.into(), vec![[1; 32]]).unwrap();
        tokio::time::advance(LIFETIME).await;
        assert!(bindings.redeem(agent, &[1; 32]).is_err(), "too late");
    }

    #[test]
    fn bindings_are_bounded() {
        let bindings = Bindings::default();
        assert!(bindings.bind("a".into(), vec![]).is_err());
        assert!(bindings.bind("a".into(), vec![[0; 32]; KEYS + 1]).is_err());
    }
}
