//! DNS names of leaves, written in the one way that every verifier reads alike.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Longest name, in bytes (RFC 1035 §2.3.4, without the dot at the end).
const NAME_LIMIT: usize = 253;
/// Longest part between two dots, in bytes (RFC 1035 §2.3.4).
const LABEL_LIMIT: usize = 63;

/// Which DNS names a leaf may have: one, or with `*.` before a domain every name below it and that wildcard itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DnsRule(String);

/// Text that is no DNS name and no `*.` with a domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "DNS name {0:?}: it must be letters in lower case, digits and hyphens between dots, as www.example.org, or *. before \
     such a name"
)]
pub struct BadDnsName(String);

impl DnsRule {
    /// Whether it names `name`, which must be well formed.
    pub fn allows(&self, name: &str) -> bool {
        let below = |domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        match self.0.strip_prefix("*.") {
            Some(domain) if !name.starts_with('*') => below(domain),
            _ => self.0 == name,
        }
    }
}

/// Whether it is a name, or a wildcard for the names of one domain, that every verifier takes as such: of letters in lower
/// case, digits and hyphens (RFC 1123 §2.1), no number, and no wildcard for a whole top-level domain.
pub fn is_well_formed(name: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => name.len() <= NAME_LIMIT && domain.contains('.') && is_plain(domain),
        None => is_plain(name),
    }
}

fn is_plain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_LIMIT).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= NAME_LIMIT
        && name.split('.').all(label)
        && last.bytes().any(|byte| byte.is_ascii_lowercase())
}

// === conversions ===

impl FromStr for DnsRule {
    type Err = BadDnsName;

    fn from_str(text: &str) -> Result<Self, BadDnsName> {
        if is_plain(text.strip_prefix("*.").unwrap_or(text)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadDnsName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for DnsRule {
    type Error = BadDnsName;

    fn try_from(text: String) -> Result<Self, BadDnsName> {
        text.parse()
    }
}

impl fmt::Display for DnsRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_well_formed_in_one_way_alone() {
        let long = "a".repeat(63);
        let name = [long.as_str(); 4].join(".");
        for good in [
            "web",
            "web.example.org",
            "a-1.0.example",
            "xn--bcher-kva.example",
            "*.example.org",
            &name[..253],
        ] {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "a..b",
            ".a",
            "a.",
            "Web.example",
            "a_b.example",
            "-a.example",
            "a-.example",
            "a b.example",
            "a\n.example",
            "bank.example\0.example",
            "b\u{fc}cher.example",
            "10.0.0.1",
            "1",
            "*",
            "*.",
            "*.org",
            "*.*.example.org",
            "a.*.example.org",
            "w*.example.org",
            &name,
            &format!("{long}a.example"),
            &format!("*.{}", &name[..253]),
        ] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn a_rule_names_a_name_or_what_is_below_a_domain() {
        let allows = |rule: &str, name: &str| rule.parse::<DnsRule>().unwrap().allows(name);
        assert!(
            allows("web.example.org", "web.example.org") && !allows("web.example.org", "a.web.example.org")
        );
        for below in ["a.example.org", "a.b.example.org", "*.example.org"] {
            assert!(allows("*.example.org", below), "{below}");
        }
        for other in ["example.org", "evilexample.org", "*.a.example.org", "*.org", ".example.org.evil"] {
            assert!(!allows("*.example.org", other), "{other}");
        }
        for bad in ["*", "*.", "*.*.org", "a.*", "EXAMPLE.org", "*.example.org."] {
            assert!(bad.parse::<DnsRule>().is_err(), "{bad}");
        }
    }
}
