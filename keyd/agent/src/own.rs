//! The agent's own SVID: its key in keyd, and how the node's TPM proves itself for it.

use std::sync::Arc;
use std::time::SystemTime;

use keyd_api::{Client, Endorsement, Quote};
use keyd_attest::{AGENT_PATH, Payload, PcrValues, certified_key, node};
use keyd_core::{Algorithm, Failure, KeyId, Namespace, PublicKey, Reason};
use keyd_tls::{Bundles, HandleKey, Identity};
use keyd_x509::{Certificate, SpiffeId, TrustDomain, request};

use crate::error::AgentError;
use crate::keyd_key::KeydKey;
use crate::server::SpireServer;
use crate::svid::chain::{read_chain, verify};
use crate::svid::lifetime::{Lifetime, chance};

/// The attestor that this agent speaks, keyd's.
const ATTESTOR: &str = "keyd_tpm";
/// The two keys: one in use, one for the next attestation.
const SLOTS: [&str; 2] = ["agent-svid-A", "agent-svid-B"];

/// The agent's own SVID.
#[derive(Clone, Debug)]
pub struct Own {
    /// Leaf first.
    pub chain: Vec<Certificate>,
    /// The agent's SPIFFE ID.
    pub id: SpiffeId,
    /// The leaf's key.
    pub key: KeydKey,
    /// From when to when it is good.
    pub lifetime: Lifetime,
}

impl Own {
    /// What TLS shows.
    ///
    /// # Errors
    /// [`AgentError::Tls`].
    pub fn identity(&self) -> Result<Arc<Identity>, AgentError> {
        let key = HandleKey::new(self.key.public_key().clone(), Arc::new(self.key.clone()));
        Ok(Arc::new(Identity::new(&self.chain, Arc::new(key))?))
    }
}

/// What makes an agent's own SVID.
#[derive(Clone, Debug)]
pub struct Attestor {
    /// keyd.
    pub keyd: Client,
    /// Where the two keys are.
    pub namespace: Namespace,
    /// Theirs.
    pub algorithm: Algorithm,
    /// The agent's.
    pub trust_domain: TrustDomain,
}

impl Attestor {
    /// The SVID of an earlier run, where its key is still there and it has not ended.
    ///
    /// # Errors
    /// keyd's; a chain that is of no use is no error.
    pub async fn resume(
        &self,
        chain: Vec<Certificate>,
        bundles: &Bundles,
        now: SystemTime,
    ) -> Result<Option<Own>, AgentError> {
        let Some(public_key) = chain.first().and_then(|leaf| leaf.public_key().ok()) else {
            return Ok(None);
        };
        let lifetime = Lifetime::of(&chain, chance()).filter(|life| !life.ended(now));
        let id = verify(&chain, bundles, now).inspect_err(|refusal| {
            tracing::warn!(%refusal, "the agent's certificate of an earlier run is of no use");
        });
        let id = id.ok().filter(|id| *id.trust_domain() == self.trust_domain);
        let (Some(lifetime), Some(id), Some(key)) = (lifetime, id, self.find(&public_key).await?) else {
            return Ok(None);
        };
        Ok(Some(Own { chain, id, key, lifetime }))
    }

    /// A new key in the slot that `in_use` is not in.
    ///
    /// # Errors
    /// keyd's.
    pub async fn fresh_key(&self, in_use: Option<&KeydKey>) -> Result<KeydKey, AgentError> {
        let taken = in_use.map(|key| key.id().name.as_str());
        let slot = SLOTS.into_iter().find(|slot| taken != Some(*slot)).unwrap_or_default();
        let id = self.slot(slot)?;
        let made = match self.keyd.create_key(&id, self.algorithm, None).await {
            Err(failure) if failure.reason == Reason::KeyExists => {
                self.keyd.rotate_key(&id, Some(self.algorithm), None).await?
            }
            made => made?,
        };
        Ok(KeydKey::new(self.keyd.clone(), made.key, made.public_key))
    }

    /// Attests with the node's TPM and gets an SVID for `key`.
    ///
    /// # Errors
    /// keyd's and the server's; [`AgentError::Answer`] for a certificate that is not what was attested.
    pub async fn attest(&self, server: &SpireServer, key: KeydKey) -> Result<Own, AgentError> {
        let Endorsement { ek_certificate, ek_public, ak_public, .. } = self.keyd.endorsement().await?;
        let keys = vec![key.public_key().fingerprint()];
        let payload = Payload::new(ek_certificate, ek_public, &ak_public, keys)?;
        let csr = request(&key, None).await?;
        let (state, bytes) = node::begin(&payload);

        let mut attestation = server.attest(ATTESTOR, bytes, csr).await?;
        let challenge = attestation.challenge().await?;
        let (state, credential) = state.challenge(&challenge)?;
        let secret = self.keyd.activate_credential(credential.id_object, credential.encrypted_secret).await?;
        let (state, asked) = state.secret(&secret);
        let Quote { attest, signature, pcrs } = self.keyd.quote(&asked.pcrs, asked.qualifying_data).await?;
        let response = state.quote(attest, signature, PcrValues::new(pcrs)?)?;
        let chain = attestation.respond(response).await?;

        let refused = |why| AgentError::Answer { call: "AttestAgent", why };
        let (id, bundles) = (self.agent_id(&payload)?, server.bundles());
        let (chain, lifetime) =
            read_chain(&chain, key.public_key(), &id, &bundles, SystemTime::now()).map_err(refused)?;
        Ok(Own { chain, id, key, lifetime })
    }

    /// The id that follows from the endorsement key; of a certificate the server takes that one's key.
    fn agent_id(&self, payload: &Payload) -> Result<SpiffeId, AgentError> {
        let ek = match &payload.ek_certificate {
            Some(der) => certified_key(der)?.sha256(),
            None => payload.ek.sha256(),
        };
        Ok(format!("spiffe://{}{AGENT_PATH}{}", self.trust_domain, hex::encode(ek)).parse()?)
    }

    async fn find(&self, public_key: &PublicKey) -> Result<Option<KeydKey>, Failure> {
        for slot in SLOTS {
            match self.keyd.show_key(&self.slot(slot)?).await {
                Ok(info) if info.public_key == *public_key => {
                    return Ok(Some(KeydKey::new(self.keyd.clone(), info.key, info.public_key)));
                }
                Err(failure) if failure.reason != Reason::KeyNotFound => return Err(failure),
                _ => {}
            }
        }
        Ok(None)
    }

    fn slot(&self, name: &str) -> Result<KeyId, Failure> {
        Ok(KeyId { namespace: self.namespace.clone(), name: name.parse()? })
    }
}
