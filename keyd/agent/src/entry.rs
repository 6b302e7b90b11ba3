//! Entries: which workload gets which SPIFFE ID.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use keyd_x509::{SpiffeId, TrustDomain};

use crate::proto::types;

/// Something a workload is, as `unix:uid:1000`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// Which attestor names it: `unix`.
    pub kind: String,
    /// As `uid:1000`.
    pub value: String,
}

/// An entry of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The server's id for it.
    pub id: String,
    /// What a matching workload is called.
    pub spiffe_id: SpiffeId,
    /// What a workload must be; never empty.
    pub selectors: BTreeSet<Selector>,
    /// Foreign trust domains whose bundles the workload gets.
    pub federates_with: BTreeSet<TrustDomain>,
    /// Tells a workload's several SVIDs apart.
    pub hint: String,
    /// One more at each change.
    pub revision: i64,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub created_at: i64,
    /// When it ends by itself.
    pub ends: Option<SystemTime>,
}

impl Entry {
    /// What the server sent, where it is one for the Workload API; `None` for one that is for a secret store.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(entry: types::Entry, trust_domain: &TrustDomain) -> Result<Option<Self>, String> {
        let bad = |why: &str| format!("entry {:?}: {why}", entry.id);
        let id = entry.spiffe_id.as_ref().ok_or_else(|| bad("it has no SPIFFE ID"))?;
        let spiffe_id = spiffe_id(id).map_err(|e| bad(&e))?;
        if spiffe_id.trust_domain() != trust_domain || spiffe_id.path().is_empty() {
            return Err(bad("its SPIFFE ID is none of a workload of this trust domain"));
        }
        // Every workload has all of no selectors.
        if entry.selectors.is_empty() || entry.id.is_empty() {
            return Err(bad("it has no selectors, or no id"));
        }
        let federates_with = entry.federates_with.iter().map(|name| trust_domain_name(name).parse());
        let federates_with =
            federates_with.collect::<Result<_, keyd_x509::X509Error>>().map_err(|e| bad(&e.to_string()))?;
        let selector = |s: &types::Selector| Selector { kind: s.r#type.clone(), value: s.value.clone() };
        Ok((!entry.store_svid).then(|| Self {
            spiffe_id,
            selectors: entry.selectors.iter().map(selector).collect(),
            federates_with,
            hint: entry.hint.clone(),
            revision: entry.revision_number,
            created_at: entry.created_at,
            ends: (entry.expires_at != 0).then(|| time(entry.expires_at)),
            id: entry.id,
        }))
    }

    /// Whether a workload with these selectors is meant: it has all that the entry names.
    pub fn matches(&self, workload: &BTreeSet<Selector>) -> bool {
        !self.selectors.is_empty() && self.selectors.is_subset(workload)
    }

    /// Whether it has ended.
    pub fn ended(&self, now: SystemTime) -> bool {
        self.ends.is_some_and(|end| end <= now)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

/// A SPIFFE ID as SPIRE's API carries it.
///
/// # Errors
/// What is wrong with it.
pub fn spiffe_id(id: &types::Spiffeid) -> Result<SpiffeId, String> {
    let text = format!("spiffe://{}{}", trust_domain_name(&id.trust_domain), id.path);
    text.parse().map_err(|e: keyd_x509::X509Error| e.to_string())
}

/// Servers write a trust domain with or without its scheme.
fn trust_domain_name(text: &str) -> &str {
    text.strip_prefix("spiffe://").unwrap_or(text)
}

/// Seconds since 1970-01-01T00:00:00Z as a moment; one before that is that moment.
fn time(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(selectors: &[&str]) -> types::Entry {
        let selector = |s: &&str| types::Selector { r#type: "unix".to_owned(), value: (*s).to_owned() };
        types::Entry {
            id: "e".to_owned(),
            spiffe_id: Some(types::Spiffeid { trust_domain: "td".to_owned(), path: "/web".to_owned() }),
            selectors: selectors.iter().map(selector).collect(),
            ..types::Entry::default()
        }
    }

    fn read(entry: types::Entry) -> Result<Option<Entry>, String> {
        Entry::new(entry, &"td".parse().unwrap())
    }

    fn workload(selectors: &[&str]) -> BTreeSet<Selector> {
        let selector = |s: &&str| Selector { kind: "unix".to_owned(), value: (*s).to_owned() };
        selectors.iter().map(selector).collect()
    }

    #[test]
    fn an_entry_matches_when_the_workload_has_all_its_selectors() {
        let entry = read(sent(&["uid:1", "gid:2"])).unwrap().unwrap();
        assert!(entry.matches(&workload(&["uid:1", "gid:2"])));
        assert!(entry.matches(&workload(&["uid:1", "gid:2", "path:/bin/sh"])));
        for other in [&["uid:1"][..], &["gid:2"], &["uid:1", "gid:3"], &["uid:11", "gid:2"], &[]] {
            assert!(!entry.matches(&workload(other)), "{other:?}");
        }
        let of_another_kind = Selector { kind: "k8s".to_owned(), value: "gid:2".to_owned() };
        let mut mixed = workload(&["uid:1"]);
        mixed.insert(of_another_kind);
        assert!(!entry.matches(&mixed));
    }

    #[test]
    fn an_entry_that_would_match_everyone_or_name_another_trust_domain_is_refused() {
        assert!(read(sent(&[])).unwrap_err().contains("no selectors"));
        let foreign = |id: Option<(&str, &str)>| types::Entry {
            spiffe_id: id
                .map(|(td, path)| types::Spiffeid { trust_domain: td.to_owned(), path: path.to_owned() }),
            ..sent(&["uid:1"])
        };
        for id in [None, Some(("other", "/web")), Some(("td", "")), Some(("td", "/a b")), Some(("", "/web"))]
        {
            assert!(read(foreign(id)).is_err(), "{id:?}");
        }
    }

    #[test]
    fn an_entry_for_a_secret_store_is_not_for_the_workload_api() {
        let stored = types::Entry { store_svid: true, ..sent(&["uid:1"]) };
        assert_eq!(read(stored).unwrap(), None);
    }

    #[test]
    fn an_entry_ends_when_it_says() {
        let entry = |at| read(types::Entry { expires_at: at, ..sent(&["uid:1"]) }).unwrap().unwrap();
        assert!(!entry(0).ended(time(i64::MAX / 4)));
        assert!(!entry(100).ended(time(99)));
        assert!(entry(100).ended(time(100)));
    }
}
