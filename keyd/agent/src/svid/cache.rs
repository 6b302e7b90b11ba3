//! What the agent has and what it lacks. No IO and no clock: whoever calls says what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::entry::Entry;
use crate::keyd_key::KeydKey;
use crate::svid::{Custody, Shared, Want};

/// How long a replaced key in keyd goes on signing, so that handshakes under way end well.
pub const GRACE: Duration = Duration::from_secs(60);
/// How long an SVID that could not be made is left alone: at first, and at most.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Entries and the SVIDs made for them.
#[derive(Debug, Default)]
pub struct Cache {
    entries: BTreeMap<String, Arc<Entry>>,
    /// Entries for which somebody asked for a key in keyd.
    asked: BTreeSet<String>,
    held: BTreeMap<Want, Shared>,
    failing: BTreeMap<Want, Retry>,
    retired: Vec<Retired>,
}

/// A key in keyd that was replaced, or whose SVID is of no use any more.
#[derive(Clone, Debug)]
pub struct Retired {
    /// The entry that it belongs to.
    pub entry: String,
    /// The key.
    pub key: KeydKey,
    /// Until when it signs.
    pub until: SystemTime,
}

#[derive(Clone, Debug)]
struct Retry {
    at: SystemTime,
    wait: Duration,
    why: String,
}

impl Cache {
    /// Takes the server's entries, all of them; gives whether anything changed. What no entry stands behind any more is
    /// dropped at once.
    pub fn set_entries(&mut self, entries: impl IntoIterator<Item = Entry>, now: SystemTime) -> bool {
        let entries: BTreeMap<_, _> = entries.into_iter().map(|e| (e.id.clone(), Arc::new(e))).collect();
        if entries == self.entries {
            return false;
        }
        self.entries = entries;
        let entries = &self.entries;
        self.asked.retain(|id| entries.contains_key(id));
        self.failing.retain(|want, _| entries.contains_key(&want.entry));
        let goes = |want: &Want, svid: &Shared| {
            entries.get(&want.entry).is_none_or(|entry| entry.spiffe_id != svid.spiffe_id)
        };
        drop_held(&mut self.held, &mut self.retired, now, goes);
        let ownerless = self.retired.iter_mut().filter(|r| !entries.contains_key(&r.entry));
        ownerless.for_each(|retired| retired.until = now);
        true
    }

    /// Somebody wants a key in keyd for this entry. Gives whether that is new.
    pub fn ask(&mut self, entry: &str) -> bool {
        self.entries.contains_key(entry) && self.asked.insert(entry.to_owned())
    }

    /// What is to be made now: first what is missing, then what ends soonest.
    pub fn due(&self, now: SystemTime) -> Vec<Want> {
        let of = |custody| {
            move |entry: &&Arc<Entry>| match custody {
                Custody::Memory => true,
                Custody::Keyd => self.asked.contains(&entry.id),
            }
        };
        let wants = [Custody::Memory, Custody::Keyd].into_iter().flat_map(|custody| {
            let entries = self.entries.values().filter(|e| !e.ended(now)).filter(of(custody));
            entries.map(move |entry| (Want { entry: entry.id.clone(), custody }, entry))
        });
        let mut due: Vec<_> = wants
            .filter(|(want, entry)| self.lacks(want, entry, now))
            .map(|(want, _)| (self.held.get(&want).map(|svid| svid.lifetime.not_after), want))
            .collect();
        due.sort();
        due.into_iter().map(|(_, want)| want).collect()
    }

    fn lacks(&self, want: &Want, entry: &Entry, now: SystemTime) -> bool {
        let left_alone = self.failing.get(want).is_some_and(|retry| retry.at > now);
        let good = self
            .held
            .get(want)
            .is_some_and(|svid| svid.revision == entry.revision && !svid.lifetime.renewal_due(now));
        !left_alone && !good
    }

    /// The entry with this id.
    pub fn entry(&self, id: &str) -> Option<&Arc<Entry>> {
        self.entries.get(id)
    }

    /// Puts an SVID in place of the one before. One whose entry went away or was renamed meanwhile is not kept.
    pub fn install(&mut self, want: Want, svid: Shared, now: SystemTime) {
        self.failing.remove(&want);
        let welcome = self.entries.get(&want.entry).is_some_and(|e| e.spiffe_id == svid.spiffe_id);
        let (replaced, until) = match welcome {
            true => (self.held.insert(want.clone(), svid), now + GRACE),
            false => (Some(svid), now),
        };
        self.retired.extend(replaced.and_then(|svid| retire(&want, &svid, until)));
    }

    /// Notes that an SVID could not be made, and why.
    pub fn failed(&mut self, want: Want, why: String, now: SystemTime) {
        let wait = self.failing.get(&want).map_or(RETRY_MIN, |r| (r.wait * 2).min(RETRY_MAX));
        self.failing.insert(want, Retry { at: now + wait, wait, why });
    }

    /// Drops what has ended; gives whether anything did.
    pub fn expire(&mut self, now: SystemTime) -> bool {
        let entries = &self.entries;
        let ended = |want: &Want, svid: &Shared| {
            svid.lifetime.ended(now) || entries.get(&want.entry).is_none_or(|e| e.ended(now))
        };
        drop_held(&mut self.held, &mut self.retired, now, ended)
    }

    /// Drops everything.
    pub fn clear(&mut self, now: SystemTime) {
        self.set_entries([], now);
    }

    /// Takes the keys in keyd that sign no more, to be destroyed.
    pub fn spent(&mut self, now: SystemTime) -> Vec<KeydKey> {
        let spent = self.retired.extract_if(.., |r| r.until <= now);
        spent.map(|retired| retired.key).collect()
    }

    /// The entries in the order in which the Workload API names them: the oldest first.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        let mut entries: Vec<_> = self.entries.values().cloned().collect();
        entries.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        entries
    }

    /// What is there.
    pub fn held(&self) -> &BTreeMap<Want, Shared> {
        &self.held
    }

    /// What could not be made, and why.
    pub fn failing(&self) -> impl Iterator<Item = (&Want, &str)> {
        self.failing.iter().map(|(want, retry)| (want, retry.why.as_str()))
    }

    /// Keys in keyd on their way out.
    pub fn retired(&self) -> &[Retired] {
        &self.retired
    }
}

/// Takes out what `goes`, whose keys in keyd are spent at once; gives whether anything went.
fn drop_held(
    held: &mut BTreeMap<Want, Shared>,
    retired: &mut Vec<Retired>,
    now: SystemTime,
    goes: impl Fn(&Want, &Shared) -> bool,
) -> bool {
    let before = held.len();
    let gone = held.extract_if(.., |want, svid| goes(want, svid));
    retired.extend(gone.filter_map(|(want, svid)| retire(&want, &svid, now)));
    held.len() != before
}

fn retire(want: &Want, svid: &Shared, until: SystemTime) -> Option<Retired> {
    svid.keyd_key().map(|key| Retired { entry: want.entry.clone(), key: key.clone(), until })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use keyd_api::Client;
    use keyd_core::{Algorithm, PublicKey, Secret};

    use super::*;
    use crate::entry::Selector;
    use crate::svid::lifetime::Lifetime;
    use crate::svid::{Svid, SvidKey};

    const MEMORY: Custody = Custody::Memory;
    const KEYD: Custody = Custody::Keyd;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn entry(id: &str, revision: i64) -> Entry {
        Entry {
            id: id.to_owned(),
            spiffe_id: format!("spiffe://td/{id}").parse().unwrap(),
            selectors: [Selector { kind: "unix".to_owned(), value: "uid:1".to_owned() }].into(),
            federates_with: BTreeSet::new(),
            hint: String::new(),
            revision,
            created_at: 0,
            ends: None,
        }
    }

    fn want(entry: &str, custody: Custody) -> Want {
        Want { entry: entry.to_owned(), custody }
    }

    /// An SVID that is to be renewed at 500 and ends at 1000. `key` names one in keyd.
    fn svid(entry: &Entry, key: Option<&str>) -> Shared {
        let in_keyd = |name: &str| {
            let public_key = PublicKey::from_raw(Algorithm::MlDsa44, &[7; 1312]).unwrap();
            KeydKey::new(Client::new(Path::new("/none")), name.parse().unwrap(), public_key)
        };
        Arc::new(Svid {
            spiffe_id: entry.spiffe_id.clone(),
            chain: Vec::new(),
            key: key
                .map_or_else(|| SvidKey::Memory(Secret::new(vec![1])), |name| SvidKey::Keyd(in_keyd(name))),
            lifetime: Lifetime { renew_at: at(500), not_after: at(1000) },
            revision: entry.revision,
        })
    }

    /// One entry `a` with both SVIDs, made at 0. The client of keyd in the key wants a runtime, and is never used.
    fn with_one(key: &str) -> Cache {
        let mut cache = Cache::default();
        cache.set_entries([entry("a", 1)], at(0));
        assert!(cache.ask("a"));
        cache.install(want("a", MEMORY), svid(&entry("a", 1), None), at(0));
        cache.install(want("a", KEYD), svid(&entry("a", 1), Some(key)), at(0));
        cache
    }

    fn names(keys: &[KeydKey]) -> Vec<String> {
        keys.iter().map(|key| key.id().to_string()).collect()
    }

    #[tokio::test]
    async fn every_entry_is_to_have_an_svid_in_memory_and_one_in_keyd_for_who_asks() {
        let mut cache = Cache::default();
        assert!(cache.set_entries([entry("a", 1), entry("b", 1)], at(0)));
        assert!(!cache.set_entries([entry("b", 1), entry("a", 1)], at(0)), "nothing new");
        assert_eq!(cache.due(at(0)), [want("a", MEMORY), want("b", MEMORY)]);
        assert!(cache.ask("b") && !cache.ask("b") && !cache.ask("c"));
        assert_eq!(cache.due(at(0)), [want("a", MEMORY), want("b", MEMORY), want("b", KEYD)]);
    }

    #[tokio::test]
    async fn an_svid_is_replaced_at_its_time_or_for_a_new_revision() {
        let mut cache = with_one("workload/k");
        assert_eq!(cache.due(at(499)), []);
        assert_eq!(cache.due(at(500)), [want("a", MEMORY), want("a", KEYD)]);
        cache.set_entries([entry("a", 2)], at(1));
        assert_eq!(cache.due(at(1)), [want("a", MEMORY), want("a", KEYD)]);
        assert_eq!(cache.held().len(), 2, "the old ones serve on");
    }

    #[tokio::test]
    async fn what_is_missing_comes_before_what_still_lives() {
        let mut cache = with_one("workload/k");
        cache.set_entries([entry("a", 1), entry("z", 1)], at(0));
        assert_eq!(cache.due(at(600)), [want("z", MEMORY), want("a", MEMORY), want("a", KEYD)]);
    }

    #[tokio::test]
    async fn what_no_entry_stands_behind_is_dropped_at_once_with_its_key() {
        let mut cache = with_one("workload/k");
        cache.set_entries([], at(10));
        assert!(cache.held().is_empty());
        assert_eq!(names(&cache.spent(at(10))), ["workload/k"]);
        let mut renamed = entry("a", 2);
        renamed.spiffe_id = "spiffe://td/other".parse().unwrap();
        let mut cache = with_one("workload/k");
        cache.set_entries([renamed], at(10));
        assert!(cache.held().is_empty(), "an SVID of another name is another one's");
        cache.install(want("a", KEYD), svid(&entry("a", 1), Some("workload/late")), at(10));
        assert!(cache.held().is_empty(), "also when it comes late");
        assert_eq!(names(&cache.spent(at(10))), ["workload/k", "workload/late"]);
    }

    #[tokio::test]
    async fn a_replaced_key_signs_for_a_minute() {
        let mut cache = with_one("workload/old");
        cache.install(want("a", KEYD), svid(&entry("a", 1), Some("workload/new")), at(500));
        assert_eq!(names(&cache.spent(at(559))), [""; 0]);
        assert_eq!(cache.retired().len(), 1);
        assert_eq!(names(&cache.spent(at(560))), ["workload/old"]);
        assert!(cache.retired().is_empty());
        cache.install(want("a", KEYD), svid(&entry("a", 1), Some("workload/newer")), at(600));
        cache.set_entries([], at(601));
        assert_eq!(names(&cache.spent(at(601))), ["workload/new", "workload/newer"], "unless its entry goes");
    }

    #[tokio::test]
    async fn what_has_ended_is_dropped() {
        let mut cache = with_one("workload/k");
        assert!(!cache.expire(at(999)));
        assert!(cache.expire(at(1000)));
        assert!(cache.held().is_empty());
        assert_eq!(names(&cache.spent(at(1000))), ["workload/k"]);
        let mut cache = with_one("workload/k");
        cache.set_entries([Entry { ends: Some(at(100)), ..entry("a", 1) }], at(0));
        assert!(cache.expire(at(100)), "an entry can end before its SVID");
        assert_eq!(cache.due(at(100)), []);
    }

    #[tokio::test]
    async fn what_fails_is_tried_again_ever_more_rarely() {
        let mut cache = Cache::default();
        cache.set_entries([entry("a", 1)], at(0));
        let mut now = at(0);
        for wait in [5, 10, 20, 40, 80, 160, 300, 300] {
            cache.failed(want("a", MEMORY), "no".to_owned(), now);
            now += Duration::from_secs(wait);
            assert_eq!(cache.due(now - Duration::from_secs(1)), [], "{wait}");
            assert_eq!(cache.due(now), [want("a", MEMORY)], "{wait}");
        }
        assert_eq!(cache.failing().map(|(_, why)| why).collect::<Vec<_>>(), ["no"]);
        cache.install(want("a", MEMORY), svid(&entry("a", 1), None), now);
        assert_eq!(cache.failing().count(), 0);
    }

    #[tokio::test]
    async fn the_oldest_entry_comes_first() {
        let mut cache = Cache::default();
        let old = |id, created_at| Entry { created_at, ..entry(id, 1) };
        cache.set_entries([old("a", 3), old("c", 1), old("b", 1)], at(0));
        let ids: Vec<_> = cache.entries().iter().map(|e| e.id.clone()).collect();
        assert_eq!(ids, ["b", "c", "a"]);
    }
}
