//! Key ids: `NAMESPACE/ID`, valid once built.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Reason, quoted};

/// Longest namespace, in bytes.
const NAMESPACE_LEN: usize = 64;
/// Longest name within a namespace, in bytes.
const NAME_LEN: usize = 128;

/// A set of keys with one policy, such as `spire-server`: 1 to 64 of `a-z 0-9 -`, a letter or digit first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(String);

/// A key's name within its namespace, such as `x509-CA-A`: 1 to 128 of `A-Z a-z 0-9 - _ .`, a letter or digit
/// first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName(String);

/// A key's full id, written `NAMESPACE/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId {
    /// The namespace, which policy is about.
    pub namespace: Namespace,
    /// The name within it.
    pub name: KeyName,
}

impl Namespace {
    /// The namespace as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl KeyName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        match well_formed(text, NAMESPACE_LEN, allowed) {
            true => Ok(Self(text.to_owned())),
            false => {
                Err(refusal("namespace", text, "1 to 64 of a-z, 0-9 and -, beginning with a letter or digit"))
            }
        }
    }
}

impl FromStr for KeyName {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        match well_formed(text, NAME_LEN, allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(refusal(
                "key name",
                text,
                "1 to 128 of A-Z, a-z, 0-9, '-', '_' and '.', beginning with a letter or digit",
            )),
        }
    }
}

impl FromStr for KeyId {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let Some((namespace, name)) = text.split_once('/') else {
            return Err(refusal("key id", text, "NAMESPACE/ID, such as spire-server/x509-CA-A"));
        };
        Ok(Self { namespace: namespace.parse()?, name: name.parse()? })
    }
}

fn well_formed(text: &str, longest: usize, allowed: impl Fn(u8) -> bool) -> bool {
    text.len() <= longest
        && text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric() && allowed(c))
        && text.bytes().all(allowed)
}

fn refusal(what: &str, text: &str, wanted: &str) -> Failure {
    Failure::new(Reason::BadKeyId, format!("bad {what} {}: it must be {wanted}", quoted(text)))
}

// === conversions ===

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

macro_rules! string_conversions {
    ($($t:ty),*) => {$(
        impl TryFrom<String> for $t {
            type Error = Failure;
            fn try_from(text: String) -> Result<Self, Failure> {
                text.parse()
            }
        }
        impl From<$t> for String {
            fn from(value: $t) -> Self {
                value.to_string()
            }
        }
    )*};
}
string_conversions!(Namespace, KeyName, KeyId);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_that_spire_uses_are_taken() {
        for id in
            ["spire-server/x509-CA-A", "spire-server/JWT-Signer-B", "spire-agent/agent-svid-A", "a/ec-p256"]
        {
            assert_eq!(id.parse::<KeyId>().unwrap().to_string(), id);
        }
    }

    #[test]
    fn nasty_ids_are_refused() {
        let long = format!("a/{}", "x".repeat(10 * 1024));
        for id in [
            "", "/", "a", "a/", "/b", "a/b/c", "a/../b", "a/..", "a/.b", "A/b", "a/b\0", "a/b c", "a/ü",
            "a/-b", &long,
        ] {
            let e = id.parse::<KeyId>().unwrap_err();
            assert_eq!(e.reason, Reason::BadKeyId, "{id:?}");
            assert!(e.message.len() < 400, "an error does not repeat 10 kB");
        }
    }

    proptest! {
        #[test]
        fn every_id_of_the_form_is_taken(
            namespace in "[a-z0-9][a-z0-9-]{0,63}", name in "[A-Za-z0-9][A-Za-z0-9_.-]{0,127}",
        ) {
            let id: KeyId = format!("{namespace}/{name}").parse().unwrap();
            prop_assert_eq!((id.namespace.as_str(), id.name.as_str()), (namespace.as_str(), name.as_str()));
        }

        #[test]
        fn no_id_leaves_its_place_or_breaks_a_line(text in "[a-zA-Z0-9/._ \\-\\x00-\\x1f\\u{80}-\\u{2ff}]{0,300}") {
            if let Ok(id) = text.parse::<KeyId>() {
                let name = id.name.as_str();
                prop_assert!(!name.starts_with('.') && !name.contains('/'), "{:?}", name);
                prop_assert!(text.bytes().all(|c| c.is_ascii_graphic()), "{:?}", text);
                prop_assert!(text.len() <= 64 + 1 + 128);
            }
        }

        #[test]
        fn what_parses_prints_the_same(text in ".{0,200}") {
            if let Ok(id) = text.parse::<KeyId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
