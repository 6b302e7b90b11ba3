//! `[[issuance]]`: what a CA key may sign.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use keyd_core::config::{Misfit, Spanned};
use keyd_core::{Failure, KeyId, Namespace, Reason, nearest};
use keyd_x509::TrustDomain;
use keyd_x509::issuance::{CaRule, LeafRule, OwnRule, Profile};
use serde::Deserialize;

/// `[[issuance]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Written")]
pub struct IssuanceTable {
    /// The keys that it is about.
    pub keys: Vec<Spanned<KeyPattern>>,
    /// What they may sign.
    pub profile: Arc<Profile>,
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    keys: Vec<Spanned<KeyPattern>>,
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

impl From<Written> for IssuanceTable {
    fn from(written: Written) -> Self {
        let Written { keys, trust_domain, own, ca, leaf } = written;
        Self { keys, profile: Arc::new(Profile { trust_domain, own, ca, leaf }) }
    }
}

/// Whether each table allows something, and each key has one profile at most and is of a namespace that there is.
///
/// # Errors
/// The first table or key that does not fit.
pub fn check(tables: &[Spanned<IssuanceTable>], namespaces: &BTreeSet<&Namespace>) -> Result<(), Misfit> {
    let mut seen: Vec<&KeyPattern> = Vec::new();
    for table in tables {
        let IssuanceTable { keys, profile } = table.get_ref();
        if keys.is_empty() {
            let why = "an [[issuance]] table names no keys, as keys = [\"spire-server/x509-CA-*\"] does";
            return Err(Misfit::at(table.span(), why.to_owned()));
        }
        profile.check().map_err(|why| Misfit::at(table.span(), format!("[[issuance]]: {why}")))?;
        for key in keys {
            let pattern = key.get_ref();
            let namespace = &pattern.id.namespace;
            let misfit = |why: String| Misfit::at(key.span(), format!("[[issuance]] names {pattern}, {why}"));
            if !namespaces.contains(namespace) {
                let near = nearest(namespace.as_str(), namespaces.iter().map(|n| n.as_str()));
                let hint = near.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
                return Err(misfit(format!("but no [[namespace]] defines {namespace}{hint}")));
            }
            if let Some(other) = seen.iter().find(|other| other.overlaps(pattern)) {
                return Err(misfit(format!("where {other} is named already; a key has one profile")));
            }
        }
        seen.extend(keys.iter().map(Spanned::get_ref));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use keyd_unix::ConfigFile;

    use crate::config::Config;

    /// A good table as the second one, after seven lines.
    const GOOD: &str = r#"[[namespace]]
name = "site"
protections = ["software"]
[[issuance]]
keys = ["site/first"]
trust_domain = "td"
own = { lifetime = "1h" }
[[issuance]]
keys = ["site/x509-CA-*"]
trust_domain = "td"
own = { lifetime = "3650days" }
[issuance.ca]
lifetime = "30days"
algorithms = ["ml-dsa-65"]
[issuance.leaf]
lifetime = "1day"
ids = ["spiffe://td/*"]
algorithms = ["ml-dsa-65"]
"#;

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_the_way_out() {
        Config::parse("keyd.toml", GOOD).unwrap();
        for (good, bad, line, words) in [
            (
                "trust_domain = \"td\"\nown = { lifetime = \"3650",
                "trust_domian = \"td\"\nown = { lifetime = \"3650",
                10,
                &["`trust_domian`", "Did you mean \"trust_domain\"?"][..],
            ),
            ("lifetime = \"1day\"", "lifetme = \"1day\"", 16, &["`lifetme`", "Did you mean \"lifetime\"?"]),
            ("[issuance.leaf]", "[issuance.laef]", 15, &["`laef`", "Did you mean \"leaf\"?"]),
            (
                "\"site/x509-CA-*\"",
                "\"siet/x509-CA-*\"",
                9,
                &["siet/x509-CA-*", "no [[namespace]] defines siet", "Did you mean site?"],
            ),
            ("\"site/x509-CA-*\"", "\"site/f*\"", 9, &["site/f*", "site/first is named already"]),
            ("\"site/x509-CA-*\"", "\"site/*\"", 9, &["* may stand at its end"]),
            ("\"site/x509-CA-*\"", "", 8, &["names no keys"]),
            ("lifetime = \"1day\"", "lifetime = \"-1day\"", 16, &["\"-1day\"", "1s to 100years", "30days"]),
            ("lifetime = \"1day\"", "lifetime = \"0s\"", 16, &["\"0s\"", "nothing could be signed"]),
            ("lifetime = \"1day\"", "lifetime = \"101years\"", 16, &["\"101years\"", "1s to 100years"]),
            ("lifetime = \"1day\"", "lifetime = \"99999999999999years\"", 16, &["1s to 100years"]),
            ("lifetime = \"1day\"", "lifetime = 86400", 16, &["string"]),
            ("lifetime = \"3650days\"", "lifetime = \"forever\"", 11, &["\"forever\"", "30days"]),
            ("spiffe://td/*", "spiffe://td/a*", 17, &["spiffe://td/a*", "only at its end"]),
            ("spiffe://td/*", "spiffe://TD/*", 17, &["spiffe://TD", "trust domain"]),
            ("spiffe://td/*", "spiffe://other/*", 8, &["leaf.ids", "other", "not td"]),
            ("[\"spiffe://td/*\"]", "[]", 8, &["leaf.ids names none"]),
            (
                "algorithms = [\"ml-dsa-65\"]\n[issuance.leaf]",
                "algorithms = []\n[issuance.leaf]",
                8,
                &["algorithms names none"],
            ),
            (
                "algorithms = [\"ml-dsa-65\"]\n[issuance.leaf]",
                "algorithms = [\"ml-dsa65\"]\n[issuance.leaf]",
                14,
                &["ml-dsa65", "Did you mean ml-dsa-65?"],
            ),
            (
                "trust_domain = \"td\"\nown = { lifetime = \"3650",
                "trust_domain = \"T D\"\nown = { lifetime = \"3650",
                10,
                &["trust domain"],
            ),
            (
                "algorithms = [\"ml-dsa-65\"]\n[issuance.leaf]",
                "path_length = 256\nalgorithms = [\"ml-dsa-65\"]\n[issuance.leaf]",
                14,
                &["256"],
            ),
        ] {
            let text = GOOD.replacen(good, bad, 1);
            assert_ne!(text, GOOD, "{good}");
            let said = Config::parse("keyd.toml", &text).unwrap_err().message;
            println!("{said}");
            for word in words.iter().chain([&format!("keyd.toml:{line}:").as_str()]) {
                assert!(said.contains(word), "{word:?} is not in {said:?}");
            }
        }
        let nothing = GOOD.split("own = { lifetime = \"3650").next().unwrap();
        let said = Config::parse("keyd.toml", nothing).unwrap_err().message;
        assert!(said.contains("keyd.toml:8:") && said.contains("give it own, ca or leaf"), "{said}");
    }
}
