//! SPIFFE IDs and trust domains, valid once built (SPIFFE-ID §2).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::X509Error;

/// Longest SPIFFE ID, in bytes (SPIFFE-ID §2.3).
const ID_LIMIT: usize = 2048;
/// Longest trust domain, in bytes (SPIFFE-ID §2.1 points to RFC 3986; SPIRE takes 255).
const TRUST_DOMAIN_LIMIT: usize = 255;
const SCHEME: &str = "spiffe://";

/// The name of a trust domain, such as `example.org`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

/// A SPIFFE ID, such as `spiffe://example.org/web`; without a path it names the trust domain itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    uri: String,
    trust_domain: TrustDomain,
}

impl TrustDomain {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `spiffe://NAME`, the id of the trust domain itself: what a CA certificate carries.
    pub fn id(&self) -> SpiffeId {
        SpiffeId { uri: format!("{SCHEME}{}", self.0), trust_domain: self.clone() }
    }
}

impl SpiffeId {
    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain in it.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash, or nothing.
    pub fn path(&self) -> &str {
        self.uri.get(SCHEME.len() + self.trust_domain.0.len()..).unwrap_or_default()
    }
}

impl FromStr for TrustDomain {
    type Err = X509Error;

    fn from_str(text: &str) -> Result<Self, X509Error> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.' | b'_');
        let why = if text.is_empty() {
            "it is empty"
        } else if text.len() > TRUST_DOMAIN_LIMIT {
            "it is longer than 255 bytes"
        } else if !text.bytes().all(allowed) {
            "it may hold a-z, 0-9, '-', '.' and '_' alone"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(refusal("trust domain", text, why))
    }
}

impl FromStr for SpiffeId {
    type Err = X509Error;

    fn from_str(text: &str) -> Result<Self, X509Error> {
        let bad = |why| refusal("SPIFFE ID", text, why);
        if text.len() > ID_LIMIT {
            return Err(bad("it is longer than 2048 bytes"));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| bad("it must begin with spiffe://"))?;
        let (domain, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let trust_domain = domain.parse().map_err(|_| bad("its trust domain is not well formed"))?;
        if let Some(path) = path.strip_prefix('/') {
            let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
            for segment in path.split('/') {
                match segment {
                    "" => return Err(bad("its path has an empty segment")),
                    "." | ".." => return Err(bad("its path has a '.' or '..' segment")),
                    s if !s.bytes().all(allowed) => {
                        return Err(bad("its path may hold a-z, A-Z, 0-9, '-', '.' and '_' alone"));
                    }
                    _ => {}
                }
            }
        }
        Ok(Self { uri: text.to_owned(), trust_domain })
    }
}

/// How much of a bad id an error repeats, in characters.
const SHOWN: usize = 80;

pub(crate) fn refusal(what: &'static str, text: &str, why: &'static str) -> X509Error {
    X509Error::SpiffeId { what, text: text.chars().take(SHOWN).collect(), why }
}

// === conversions ===

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = X509Error;

    fn try_from(text: String) -> Result<Self, X509Error> {
        text.parse()
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = X509Error;

    fn try_from(text: String) -> Result<Self, X509Error> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(value: TrustDomain) -> Self {
        value.0
    }
}

impl From<SpiffeId> for String {
    fn from(value: SpiffeId) -> Self {
        value.uri
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_split_into_trust_domain_and_path() {
        let id: SpiffeId = "spiffe://example.org/spire/agent/x".parse().unwrap();
        assert_eq!((id.trust_domain().as_str(), id.path()), ("example.org", "/spire/agent/x"));
        let domain: SpiffeId = "spiffe://example.org".parse().unwrap();
        assert_eq!(domain.path(), "");
        assert_eq!(domain, domain.trust_domain().id());
    }

    #[test]
    fn ids_that_break_the_standard_are_refused() {
        let long = format!("spiffe://td/{}", "a".repeat(2048));
        for bad in [
            "",
            "spiffe://",
            "spiffe:///a",
            "SPIFFE://td/a",
            "http://td/a",
            "spiffe://TD/a",
            "spiffe://td/",
            "spiffe://td//a",
            "spiffe://td/a/",
            "spiffe://td/../a",
            "spiffe://td/a?b",
            "spiffe://td/a#b",
            "spiffe://u@td/a",
            "spiffe://td:1/a",
            "spiffe://td/%61",
            "spiffe://td/ä",
            "spiffe://td/a b",
            &long,
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same(text in "(spiffe://)?[a-zA-Z0-9./?#%_-]{0,60}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
