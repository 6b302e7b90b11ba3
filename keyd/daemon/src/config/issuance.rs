//! `[[issuance]]`: what a CA key may sign.

use std::fmt;
use std::sync::Arc;

use keyd_core::{Failure, KeyId, Reason};
use keyd_x509::TrustDomain;
use keyd_x509::issuance::{CaRule, LeafRule, OwnRule, Profile};
use serde::Deserialize;

/// `[[issuance]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct IssuanceTable {
    /// The keys that it is about.
    pub keys: Vec<KeyPattern>,
    /// What they may sign.
    pub profile: Arc<Profile>,
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    keys: Vec<KeyPattern>,
    trust_domain: TrustDomain,
    own: Option<OwnRule>,
    ca: Option<CaRule>,
    leaf: Option<LeafRule>,
}

/// A key id, or with `*` at its end every key whose id begins so, as `spire-server/x509-CA-*`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyPattern {
    /// Of one key, or the beginning of several.
    id: KeyId,
    every: bool,
}

impl KeyPattern {
    /// Whether it names this key.
    pub fn names(&self, id: &KeyId) -> bool {
        self.id.namespace == id.namespace
            && if self.every {
                id.name.as_str().starts_with(self.id.name.as_str())
            } else {
                self.id.name == id.name
            }
    }

    /// Whether some key is named by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.names(&other.id) || other.names(&self.id)
    }

    /// The id, or the beginning of ids.
    pub fn id(&self) -> &KeyId {
        &self.id
    }
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.id, if self.every { "*" } else { "" })
    }
}

impl TryFrom<String> for KeyPattern {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self, Failure> {
        let (id, every) = text.strip_suffix('*').map_or((text.as_str(), false), |id| (id, true));
        let id = id.parse().map_err(|f: Failure| {
            Failure::new(
                Reason::BadConfig,
                format!("{f}; a * may stand at its end, after at least one character"),
            )
        })?;
        Ok(Self { id, every })
    }
}

impl TryFrom<Written> for IssuanceTable {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { keys, trust_domain, own, ca, leaf } = written;
        if keys.is_empty() {
            return Err("an [[issuance]] table names no keys".to_owned());
        }
        let profile = Profile { trust_domain, own, ca, leaf };
        profile.check().map_err(|why| format!("[[issuance]] of {}: {why}", named(&keys)))?;
        Ok(Self { keys, profile: Arc::new(profile) })
    }
}

/// Whether each key has one profile at most.
///
/// # Errors
/// Two tables name the same key.
pub fn check(tables: &[IssuanceTable]) -> Result<(), String> {
    let mut seen: Vec<&KeyPattern> = Vec::new();
    for table in tables {
        for pattern in &table.keys {
            if let Some(other) = seen.iter().find(|other| other.overlaps(pattern)) {
                return Err(format!("[[issuance]] names {pattern} where {other} is named already"));
            }
        }
        seen.extend(&table.keys);
    }
    Ok(())
}

fn named(keys: &[KeyPattern]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
