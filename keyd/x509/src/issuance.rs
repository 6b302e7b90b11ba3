//! Issuance profiles: what a CA key may sign.
//!
//! ML-DSA signs whole messages, so whoever holds a CA key can read each certificate before he signs it. A profile allows the
//! key's own certificate request and the certificates that it describes, and nothing else. What is read here must be what a
//! verifier reads later: DER is taken only as it would be written again, and whatever a profile has no word for is refused.

mod distinguished;
mod dns;
mod extensions;
mod reading;
mod rules;
mod self_test;

use std::time::{Duration, SystemTime};

use humantime_serde::re::humantime;
use keyd_core::{Algorithm, Family, PublicKey};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::{AllowedIds, SpiffeId, TrustDomain};
pub use dns::{BadDnsName, DnsRule};
use reading::{Certificate, is_own_request};

/// Longest life that a profile may allow: a hundred years of 365.25 days.
const LIFETIME_LIMIT: Duration = Duration::from_secs(36_525 * 24 * 60 * 60);

/// What a CA key may sign, beside its own certificate request. What is not given is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The trust domain of every certificate.
    pub trust_domain: TrustDomain,
    /// Its own, self-signed certificate: a root's.
    pub own: Option<OwnRule>,
    /// Certificates of other CAs.
    pub ca: Option<CaRule>,
    /// Certificates of workloads, agents and servers.
    pub leaf: Option<LeafRule>,
    /// How long the leaf may be valid from now on by which spire-server tries its CA: it has that CA's whole life.
    pub self_test_lifetime: Duration,
}

/// A CA's certificate for its own key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnRule {
    /// How long it may be valid from now on.
    #[serde(deserialize_with = "lifetime")]
    pub lifetime: Duration,
}

/// Certificates of other CAs. They name the trust domain itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaRule {
    /// How long they may be valid from now on.
    #[serde(deserialize_with = "lifetime")]
    pub lifetime: Duration,
    /// The largest path length that they may have, and then they must have one; without it, they need none.
    pub path_length: Option<u8>,
    /// Algorithms of their keys.
    pub algorithms: Vec<Algorithm>,
}

/// Certificates that are no CA's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeafRule {
    /// How long they may be valid from now on.
    #[serde(deserialize_with = "lifetime")]
    pub lifetime: Duration,
    /// The SPIFFE IDs that they may have.
    pub ids: AllowedIds,
    /// Algorithms of their keys.
    pub algorithms: Vec<Algorithm>,
    /// DNS names that they may have beside.
    #[serde(default)]
    pub dns_names: Vec<DnsRule>,
}

/// What was allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// The key's own certificate request.
    Request,
    /// A certificate.
    Certificate(Issued),
}

/// A certificate that is to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Serial number, big-endian.
    pub serial: Vec<u8>,
    /// The SPIFFE ID that it certifies.
    pub spiffe_id: SpiffeId,
    /// Whether it is a CA's.
    pub ca: bool,
    /// SHA-256 of the certified SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// First moment of validity.
    pub not_before: SystemTime,
    /// Last moment of validity.
    pub not_after: SystemTime,
}

/// Why a profile does not allow a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} (rule {rule})")]
pub struct Refused {
    /// The rule that is broken, as `leaf.lifetime`; `form` for what no profile allows.
    pub rule: &'static str,
    /// What breaks it.
    pub why: String,
}

impl Profile {
    /// Whether the profile makes sense as it stands.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), String> {
        if self.own.is_none() && self.ca.is_none() && self.leaf.is_none() {
            return Err("it allows no certificate; give it own, ca or leaf".to_owned());
        }
        let algorithms =
            self.ca.iter().map(|ca| &ca.algorithms).chain(self.leaf.iter().map(|leaf| &leaf.algorithms));
        if algorithms.into_iter().any(Vec::is_empty) {
            return Err("algorithms names none".to_owned());
        }
        let kem = self.algorithms().find(|(_, algorithm)| algorithm.family() == Family::MlKem);
        if let Some((rule, algorithm)) = kem {
            return Err(format!("{rule} names {algorithm}, whose keys sign nothing"));
        }
        let Some(leaf) = &self.leaf else { return Ok(()) };
        if leaf.ids.is_empty() {
            return Err("leaf.ids names none".to_owned());
        }
        match leaf.ids.trust_domains().find(|td| **td != self.trust_domain) {
            Some(other) => {
                Err(format!("leaf.ids names trust domain {other}, which is not {}", self.trust_domain))
            }
            None => Ok(()),
        }
    }

    /// The algorithms of the keys that may be certified, each with the rule that names it.
    pub fn algorithms(&self) -> impl Iterator<Item = (&'static str, Algorithm)> {
        let ca = self.ca.iter().flat_map(|ca| &ca.algorithms).map(|a| ("ca.algorithms", *a));
        let leaf = self.leaf.iter().flat_map(|leaf| &leaf.algorithms).map(|a| ("leaf.algorithms", *a));
        ca.chain(leaf)
    }

    /// Judges what `key`, a key under this profile, is asked to sign at `now`.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn judge(&self, key: &PublicKey, message: &[u8], now: SystemTime) -> Result<Allowed, Refused> {
        if is_own_request(key, message, &self.trust_domain)? {
            return Ok(Allowed::Request);
        }
        let certificate = Certificate::read(key, message)?;
        rules::apply(self, key, &certificate, now).map(Allowed::Certificate)
    }
}

/// A lifetime as it is written: `30days`, `12h`.
fn lifetime<'de, D: Deserializer<'de>>(written: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(written)?;
    let bad = |why: String| {
        D::Error::custom(format!("lifetime {text:?}: {why}; it must be 1s to 100years, such as \"30days\""))
    };
    let lifetime = humantime::parse_duration(&text).map_err(|e| bad(e.to_string()))?;
    match lifetime {
        Duration::ZERO => Err(bad("nothing could be signed".to_owned())),
        longer if longer > LIFETIME_LIMIT => Err(bad("that is longer than any certificate".to_owned())),
        lifetime => Ok(lifetime),
    }
}

fn refused(rule: &'static str, why: impl Into<String>) -> Refused {
    Refused { rule, why: why.into() }
}

fn malformed(why: impl Into<String>) -> Refused {
    refused("form", why)
}
