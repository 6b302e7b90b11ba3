//! `[[issuance]]`: what a CA key may sign.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use keyd_core::config::{Misfit, Spanned};
use keyd_core::{Failure, KeyId, Namespace, Reason};
use keyd_x509::TrustDomain;
use keyd_x509::issuance::{CaRule, LeafRule, OwnRule, Profile};
use serde::{Deserialize, Deserializer};

use super::profile::Profile as NodeProfile;
use super::undefined;

/// `[[issuance]]`
#[derive(Clone, Debug)]
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

/// Reads every table. How long SPIRE's certificate for its self-test may live stands in the table of whoever signs SPIRE's
/// CA: the root's, or its own.
///
/// # Errors
/// As serde reports them.
pub fn tables<'de, D: Deserializer<'de>>(written: D) -> Result<Vec<Spanned<IssuanceTable>>, D::Error> {
    let tables = Vec::<Spanned<Written>>::deserialize(written)?;
    let cas: Vec<_> = tables
        .iter()
        .map(Spanned::get_ref)
        .filter_map(|table| Some((table.trust_domain.clone(), table.ca.as_ref()?.lifetime)))
        .collect();
    let resolved = tables.into_iter().map(|table| {
        let span = table.span();
        let Written { keys, trust_domain, own, ca, leaf } = table.into_inner();
        let signed = cas.iter().filter(|(td, _)| *td == trust_domain).map(|(_, lifetime)| *lifetime);
        let itself = own.iter().map(|own| own.lifetime).chain(leaf.iter().map(|leaf| leaf.lifetime));
        let self_test_lifetime = signed.chain(itself).max().unwrap_or_default();
        let profile = Arc::new(Profile { trust_domain, own, ca, leaf, self_test_lifetime });
        Spanned::new(span, IssuanceTable { keys, profile })
    });
    Ok(resolved.collect())
}

/// Whether each table allows something, and nothing that the node's own profile leaves out, and each key has one profile at
/// most and is of a namespace that there is.
///
/// # Errors
/// The first table or key that does not fit.
pub fn check(
    tables: &[Spanned<IssuanceTable>],
    namespaces: &BTreeSet<&Namespace>,
    node: Option<NodeProfile>,
) -> Result<(), Misfit> {
    let mut seen: Vec<&KeyPattern> = Vec::new();
    for table in tables {
        let IssuanceTable { keys, profile } = table.get_ref();
        if keys.is_empty() {
            let why = "an [[issuance]] table names no keys, as keys = [\"spire-server/x509-CA-*\"] does";
            return Err(Misfit::at(table.span(), why.to_owned()));
        }
        profile.check().map_err(|why| Misfit::at(table.span(), format!("[[issuance]]: {why}")))?;
        if let Some(node) = node {
            let mut named = profile.algorithms();
            if let Some((rule, algorithm)) = named.find(|(_, algorithm)| !node.allows(*algorithm)) {
                let name = node.name();
                let why =
                    format!("[[issuance]]: {rule} names {algorithm}, which profile = {name:?} leaves out");
                return Err(Misfit::at(table.span(), why));
            }
        }
        for key in keys {
            let pattern = key.get_ref();
            let namespace = &pattern.id.namespace;
            let misfit = |why: String| Misfit::at(key.span(), format!("[[issuance]] names {pattern}, {why}"));
            if !namespaces.contains(namespace) {
                return Err(misfit(format!("but {}", undefined(namespace, namespaces))));
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
    fn an_algorithm_that_the_profile_of_the_node_leaves_out_is_refused() {
        let ca = "algorithms = [\"ml-dsa-65\"]\n[issuance.leaf]";
        let strict = format!("profile = \"cnsa2\"\n{GOOD}");
        let only_87 = strict.replace("ml-dsa-65", "ml-dsa-87");
        Config::parse("keyd.toml", &only_87).unwrap();
        for (text, rule, algorithm) in [
            (strict, "ca.algorithms", "ml-dsa-65"),
            (
                only_87.replacen("[\"ml-dsa-87\"]", "[\"ml-dsa-87\", \"ec-p384\"]", 1),
                "ca.algorithms",
                "ec-p384",
            ),
            (only_87.replace(&ca.replace("65", "87"), ca), "ca.algorithms", "ml-dsa-65"),
            (
                only_87.trim_end().trim_end_matches("]").to_owned() + ", \"ec-p256\"]",
                "leaf.algorithms",
                "ec-p256",
            ),
        ] {
            let said = Config::parse("keyd.toml", &text).unwrap_err().message;
            for word in ["keyd.toml:9:", rule, algorithm, "profile = \"cnsa2\" leaves out"] {
                assert!(said.contains(word), "{word:?} is not in {said:?}");
            }
        }
    }

    /// The root's table says how long SPIRE's CA may live, and so how long the certificate by which SPIRE tries it.
    #[test]
    fn spires_self_test_may_live_as_long_as_the_longest_ca_of_its_trust_domain() {
        let of = |text: &str, key: &str| {
            let config = Config::parse("keyd.toml", text).unwrap();
            config.issuance_profile(&key.parse().unwrap()).unwrap().self_test_lifetime.as_secs() / 3600
        };
        let root = r#"[[namespace]]
name = "site"
protections = ["software"]
[[issuance]]
keys = ["site/root"]
trust_domain = "td"
own = { lifetime = "3650days" }
ca = { lifetime = "30days", algorithms = ["ml-dsa-65"] }
"#;
        let leaf = r#"
[[issuance]]
keys = ["site/x509-CA-*"]
trust_domain = "td"
leaf = { lifetime = "36h", ids = ["spiffe://td/*"], algorithms = ["ml-dsa-65"] }
"#;
        assert_eq!(of(&format!("{root}{leaf}"), "site/x509-CA-A"), 30 * 24);
        let elsewhere = root.replace("trust_domain = \"td\"", "trust_domain = \"other\"");
        assert_eq!(of(&format!("{elsewhere}{leaf}"), "site/x509-CA-A"), 36, "no CA of this trust domain");
        let itself =
            format!("{elsewhere}{}", leaf.replace("leaf =", "own = { lifetime = \"7days\" }\nleaf ="));
        assert_eq!(of(&itself, "site/x509-CA-A"), 7 * 24, "a CA that signs itself");
    }

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
                "ids = [",
                "dns_names = [\"a.td\", \"*.B.td\"]\nids = [",
                17,
                &["\"*.B.td\"", "letters in lower case"],
            ),
            (
                "algorithms = [\"ml-dsa-65\"]\n[issuance.leaf]",
                "algorithms = [\"ml-kem-768\"]\n[issuance.leaf]",
                8,
                &["ca.algorithms names ml-kem-768", "sign nothing"],
            ),
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
