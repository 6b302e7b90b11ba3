//! What the agent knows at one moment, as those who serve see it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use keyd_x509::{Certificate, TrustDomain};

use crate::entry::{Entry, Selector};
use crate::keyd_key::KeydKey;
use crate::svid::cache::{Cache, Retired};
use crate::svid::{Custody, Shared, Want};

/// Authorities of one trust domain.
pub type Bundle = Arc<[Certificate]>;

/// Entries, SVIDs and bundles.
#[derive(Debug)]
pub struct Snapshot {
    /// The agent's own trust domain.
    pub trust_domain: TrustDomain,
    /// Authorities by trust domain: the own one and those that entries federate with.
    pub bundles: BTreeMap<TrustDomain, Bundle>,
    /// Whether the server has named its entries since the start.
    pub heard: bool,
    entries: Vec<Arc<Entry>>,
    memory: HashMap<String, Shared>,
    keyd: HashMap<String, Shared>,
    retired: Vec<Retired>,
    failing: HashMap<Want, String>,
}

impl Snapshot {
    /// What `cache` holds now.
    pub fn new(
        trust_domain: TrustDomain,
        bundles: BTreeMap<TrustDomain, Bundle>,
        heard: bool,
        cache: &Cache,
    ) -> Self {
        let of = |custody| {
            let held = cache.held().iter().filter(move |(want, _)| want.custody == custody);
            held.map(|(want, svid)| (want.entry.clone(), Arc::clone(svid))).collect()
        };
        Self {
            trust_domain,
            bundles,
            heard,
            entries: cache.entries(),
            memory: of(Custody::Memory),
            keyd: of(Custody::Keyd),
            retired: cache.retired().to_vec(),
            failing: cache.failing().map(|(want, why)| (want.clone(), why.to_owned())).collect(),
        }
    }

    /// The entries that mean a workload with these selectors, the oldest first.
    pub fn matching(&self, selectors: &BTreeSet<Selector>, now: SystemTime) -> Vec<Arc<Entry>> {
        self.entries.iter().filter(|e| !e.ended(now) && e.matches(selectors)).cloned().collect()
    }

    /// Every selector that some entry names.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.entries.iter().flat_map(|e| &e.selectors)
    }

    /// Every entry, the oldest first.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// The SVID of an entry that has not ended.
    pub fn svid(&self, entry: &str, custody: Custody, now: SystemTime) -> Option<Shared> {
        let held = match custody {
            Custody::Memory => self.memory.get(entry),
            Custody::Keyd => self.keyd.get(entry),
        };
        held.filter(|svid| !svid.lifetime.ended(now)).cloned()
    }

    /// Why an SVID of an entry cannot be made, where that was tried.
    pub fn failing(&self, entry: &str, custody: Custody) -> Option<&str> {
        self.failing.get(&Want { entry: entry.to_owned(), custody }).map(String::as_str)
    }

    /// The key behind a handle of one of these entries, while it may sign.
    pub fn key(&self, handle: &str, entries: &[Arc<Entry>], now: SystemTime) -> Option<KeydKey> {
        let current = entries.iter().filter_map(|e| self.svid(&e.id, Custody::Keyd, now));
        let current = current.filter_map(|svid| svid.keyd_key().cloned());
        let owned = |r: &&Retired| r.until > now && entries.iter().any(|e| e.id == r.entry);
        let retired = self.retired.iter().filter(owned).map(|r| r.key.clone());
        current.chain(retired).find(|key| key.id().name.as_str() == handle)
    }
}
