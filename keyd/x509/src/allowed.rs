//! Which SPIFFE IDs are meant: peers that may connect, leaves that may be certified.

use serde::Deserialize;

use crate::spiffe_id;
use crate::{SpiffeId, TrustDomain, X509Error};

/// The ids that are meant; an empty list means none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct AllowedIds(Vec<AllowedId>);

/// A rule: one SPIFFE ID, or with `/*` at the end every id below it, as `spiffe://example.org/field/*`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum AllowedId {
    /// This id alone.
    Exactly(SpiffeId),
    /// Every id below this one, at any depth, and not this one.
    Below(SpiffeId),
}

impl AllowedIds {
    /// Whether any rule names this id.
    pub fn allow(&self, id: &SpiffeId) -> bool {
        self.0.iter().any(|rule| match rule {
            AllowedId::Exactly(allowed) => allowed == id,
            AllowedId::Below(parent) => {
                let rest = id.as_str().strip_prefix(parent.as_str());
                rest.is_some_and(|rest| rest.starts_with('/'))
            }
        })
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The trust domains that the rules name, with repetitions.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.0.iter().map(|rule| match rule {
            AllowedId::Exactly(id) | AllowedId::Below(id) => id.trust_domain(),
        })
    }

    /// Whether nobody is meant.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::str::FromStr for AllowedId {
    type Err = X509Error;

    /// # Errors
    /// [`X509Error::SpiffeId`] for what is no SPIFFE ID before the `/*`.
    fn from_str(text: &str) -> Result<Self, X509Error> {
        let id = text.strip_suffix("/*");
        if id.unwrap_or(text).contains('*') {
            let why =
                "a * stands for what is below an id, and only at its end, as in spiffe://example.org/field/*";
            return Err(spiffe_id::refusal("SPIFFE ID pattern", text, why));
        }
        match id {
            Some(parent) => parent.parse().map(Self::Below),
            None => text.parse().map(Self::Exactly),
        }
    }
}

// === conversions ===

impl TryFrom<String> for AllowedId {
    type Error = X509Error;

    fn try_from(text: String) -> Result<Self, X509Error> {
        text.parse()
    }
}

impl From<SpiffeId> for AllowedId {
    fn from(id: SpiffeId) -> Self {
        Self::Exactly(id)
    }
}

impl<T: Into<AllowedId>> FromIterator<T> for AllowedIds {
    fn from_iter<I: IntoIterator<Item = T>>(rules: I) -> Self {
        Self(rules.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> AllowedIds {
        texts.iter().map(|t| t.parse::<AllowedId>().unwrap()).collect()
    }

    fn allows(rules: &AllowedIds, id: &str) -> bool {
        rules.allow(&id.parse().unwrap())
    }

    #[test]
    fn nobody_is_allowed_by_default() {
        assert!(!allows(&AllowedIds::default(), "spiffe://td/a"));
    }

    #[test]
    fn an_exact_rule_names_one_id() {
        let rules = rules(&["spiffe://td/a", "spiffe://td/b"]);
        assert!(allows(&rules, "spiffe://td/a") && allows(&rules, "spiffe://td/b"));
        for other in ["spiffe://td", "spiffe://td/a/b", "spiffe://td/ab", "spiffe://te/a", "spiffe://td/A"] {
            assert!(!allows(&rules, other), "{other}");
        }
    }

    #[test]
    fn a_rule_with_a_star_names_what_is_below() {
        let rules = rules(&["spiffe://td/field/*", "spiffe://other/*"]);
        for below in ["spiffe://td/field/a", "spiffe://td/field/a/b", "spiffe://other/x"] {
            assert!(allows(&rules, below), "{below}");
        }
        for other in ["spiffe://td/field", "spiffe://td/fields/a", "spiffe://other", "spiffe://other.org/x"] {
            assert!(!allows(&rules, other), "{other}");
        }
    }

    #[test]
    fn a_star_elsewhere_is_refused() {
        for bad in ["spiffe://*", "spiffe://td/*/a", "spiffe://td/a*", "*", "spiffe://td/a/", "spiffe:///*"] {
            assert!(bad.parse::<AllowedId>().is_err(), "{bad}");
        }
    }
}
