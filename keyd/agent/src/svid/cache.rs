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

#[derive(Clone, Copy, Debug)]
struct Retry {
    at: SystemTime,
    wait: Duration,
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

    /// Notes that an SVID could not be made.
    pub fn failed(&mut self, want: Want, now: SystemTime) {
        let wait = self.failing.get(&want).map_or(RETRY_MIN, |r| (r.wait * 2).min(RETRY_MAX));
        self.failing.insert(want, Retry { at: now + wait, wait });
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
