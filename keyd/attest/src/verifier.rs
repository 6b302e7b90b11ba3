//! The server's side: a challenge for the TPM that a payload names, and the judgement of the answer.

use std::time::Duration;

use aws_lc_rs::rand;
use keyd_core::Secret;
use rustls_pki_types::UnixTime;

use crate::binding::qualifying_data;
use crate::credential::Credential;
use crate::ek_certificate::{EkRoots, Vouched};
use crate::manifest::{Enrolled, Manifest};
use crate::message::{Challenge, Payload, Response};
use crate::quote::AttestationKey;
use crate::{EkKey, PcrSet, PcrValues, Refusal};

/// How long a node may take to answer a challenge. A slow discrete TPM needs about 10 s to activate and quote.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Where every agent that `keyd_tpm` attested has its SPIFFE ID.
pub const AGENT_PATH: &str = "/spire/agent/keyd_tpm/";

/// What a TPM must fulfil. Of `ek_roots` and `enrolled` at least one is given, and each one given must hold.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The authorities that its EK certificate must chain to.
    pub ek_roots: Option<EkRoots>,
    /// The TPMs that are let in.
    pub enrolled: Option<Enrolled>,
    /// The PCRs that it quotes, beside those that its manifest has a value for.
    pub pcrs: PcrSet,
}

/// Verifies attestations by one policy.
#[derive(Clone, Debug)]
pub struct Verifier {
    policy: Policy,
}

/// What must be unpredictable, and new for each attestation.
#[derive(Debug)]
pub struct Fresh {
    /// 32 bytes that are encrypted to the TPM.
    pub secret: Secret,
    /// 32 bytes that are sent in clear.
    pub nonce: [u8; 32],
}

/// A challenge is out; the answer comes next. It is consumed by the answer, so no nonce is good for two.
#[derive(Debug)]
pub struct Pending {
    ek: EkKey,
    manufacturer: Option<String>,
    node: Option<String>,
    reference: PcrValues,
    ak: AttestationKey,
    keys: Vec<[u8; 32]>,
    fresh: Fresh,
    pcrs: PcrSet,
    since: UnixTime,
}

/// A TPM that proved itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// Path of the agent's SPIFFE ID: [`AGENT_PATH`] and the hash of the endorsement key.
    pub agent_path: String,
    /// Selector values, without the type: `ek:...`, `manufacturer:...`, `pcr:sha256:INDEX:...`.
    pub selectors: Vec<String>,
    /// SHA-256 of the SubjectPublicKeyInfo of each key that the quote vouches for.
    pub keys: Vec<[u8; 32]>,
    /// The node's name in its manifest.
    pub node: Option<String>,
}

impl Verifier {
    /// A verifier by this policy.
    ///
    /// # Errors
    /// [`Refusal::NoPolicy`] for one that would accept every TPM, [`Refusal::NoPcrs`] for one that quotes nothing.
    pub fn new(policy: Policy) -> Result<Self, Refusal> {
        if policy.ek_roots.is_none() && policy.enrolled.is_none() {
            return Err(Refusal::NoPolicy);
        }
        if policy.pcrs.is_empty() {
            return Err(Refusal::NoPcrs);
        }
        Ok(Self { policy })
    }

    /// Makes the challenge for the TPM that this payload names, if the policy lets it in at all; the bytes go to the
    /// node.
    ///
    /// # Errors
    /// The first [`Refusal`] met.
    pub fn begin(
        &self,
        payload: &Payload,
        now: UnixTime,
        fresh: Fresh,
    ) -> Result<(Pending, Vec<u8>), Refusal> {
        let manifest = self.manifest(&payload.ek)?;
        let Vouched { key: ek, manufacturer } = self.vouched(payload, manifest, now)?;
        let ak = AttestationKey::from_public(&payload.ak)?;
        if let Some(manifest) = manifest.filter(|m| m.ak_name != ak.name()) {
            let (expected, actual) = (hex::encode(&manifest.ak_name), hex::encode(ak.name()));
            return Err(Refusal::AkNotEnrolled { expected, actual });
        }
        let reference = manifest.map(|m| m.pcrs.sha256.clone()).unwrap_or_default();
        let pcrs = self.policy.pcrs.union(reference.set());
        let credential = Credential::make(&ek, ak.name(), &fresh.secret)?;
        let challenge = Challenge { credential, nonce: fresh.nonce, pcrs }.encode();
        let node = manifest.map(|m| m.node.clone());
        let keys = payload.keys.clone();
        Ok((Pending { ek, manufacturer, node, reference, ak, keys, fresh, pcrs, since: now }, challenge))
    }

    /// The manifest of an enrolled key; `None` where no list is kept.
    fn manifest(&self, ek: &EkKey) -> Result<Option<&Manifest>, Refusal> {
        let Some(enrolled) = &self.policy.enrolled else { return Ok(None) };
        let ek = ek.sha256();
        match enrolled.get(&ek) {
            Some(manifest) => Ok(Some(manifest)),
            None => Err(Refusal::EkNotEnrolled { ek: hex::encode(ek) }),
        }
    }

    /// The endorsement key as its certificate has it where roots are demanded, else as the list knows it.
    fn vouched(
        &self,
        payload: &Payload,
        manifest: Option<&Manifest>,
        now: UnixTime,
    ) -> Result<Vouched, Refusal> {
        let Some(roots) = &self.policy.ek_roots else {
            return Ok(Vouched { key: payload.ek.clone(), manufacturer: None });
        };
        let from_manifest = manifest.and_then(|m| m.ek_certificate.as_ref()).map(|c| c.0.as_slice());
        let certificate = payload.ek_certificate.as_deref().or(from_manifest);
        let vouched = roots.verify(certificate.ok_or(Refusal::EkCertificateMissing)?, now)?;
        match vouched.key == payload.ek {
            true => Ok(vouched),
            false => Err(Refusal::EkKeyDiffers),
        }
    }
}

// === impl Pending ===

impl Pending {
    /// Judges the node's answer.
    ///
    /// # Errors
    /// The first [`Refusal`] met.
    pub fn verify(self, response: &[u8], now: UnixTime) -> Result<Attested, Refusal> {
        let limit = ANSWER_DEADLINE.as_secs();
        if now.as_secs().checked_sub(self.since.as_secs()).is_none_or(|took| took > limit) {
            return Err(Refusal::TooLate { limit });
        }
        let response = Response::decode(response)?;
        let qualifying_data = qualifying_data(&self.fresh.nonce, &self.fresh.secret, &self.keys);
        self.ak.check(&response, &qualifying_data, self.pcrs)?;
        for (index, expected) in self.reference.iter() {
            match response.pcrs.get(index) {
                Some(actual) if actual == expected => {}
                actual => {
                    let actual = actual.map(hex::encode).unwrap_or_default();
                    return Err(Refusal::PcrMoved { index, expected: hex::encode(expected), actual });
                }
            }
        }
        let ek = hex::encode(self.ek.sha256());
        let mut selectors = vec![format!("ek:{ek}")];
        selectors.extend(self.manufacturer.map(|m| format!("manufacturer:{m}")));
        selectors.extend(response.pcrs.iter().map(|(i, v)| format!("pcr:sha256:{i}:{}", hex::encode(v))));
        let agent_path = format!("{AGENT_PATH}{ek}");
        Ok(Attested { agent_path, selectors, keys: self.keys, node: self.node })
    }
}

// === impl Fresh ===

impl Fresh {
    /// A secret and a nonce from the system's generator.
    ///
    /// # Errors
    /// [`Refusal::Crypto`] if it fails.
    pub fn generate() -> Result<Self, Refusal> {
        let (mut secret, mut nonce) = (vec![0; 32], [0; 32]);
        rand::fill(&mut secret)
            .and_then(|()| rand::fill(&mut nonce))
            .map_err(|_| Refusal::Crypto { what: "random" })?;
        Ok(Self { secret: Secret::new(secret), nonce })
    }
}
