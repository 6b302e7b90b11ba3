//! What one caller may see.

use std::sync::Arc;
use std::time::SystemTime;

use keyd_core::{Failure, Reason};

use crate::entry::Entry;
use crate::snapshot::Snapshot;
use crate::svid::{Custody, Shared};
use crate::workload::{self, Peer};

/// The entries that mean this caller, the oldest first; never none.
///
/// # Errors
/// [`Reason::Denied`] where there is none; [`Reason::Unreachable`] while nobody can know.
pub async fn entries(peer: &Peer, snapshot: &Snapshot) -> Result<Vec<Arc<Entry>>, Failure> {
    if !snapshot.heard {
        return Err(Failure::new(
            Reason::Unreachable,
            "the agent has not heard from its server since it started; `keyd-agent status` says why",
        ));
    }
    let selectors = workload::attest(peer, snapshot.selectors()).await;
    let entries = snapshot.matching(&selectors, SystemTime::now());
    match entries.is_empty() {
        false => Ok(entries),
        true => Err(Failure::new(
            Reason::Denied,
            format!(
                "no identity issued: no entry of the server means a process of user {} and group {} like this one",
                peer.uid, peer.gid
            ),
        )),
    }
}

/// The SVIDs with keys in memory that there are for these entries now; never none.
///
/// # Errors
/// [`Reason::Unreachable`] where there is none.
pub fn svids(entries: &[Arc<Entry>], snapshot: &Snapshot) -> Result<Vec<(Arc<Entry>, Shared)>, Failure> {
    let now = SystemTime::now();
    let svid = |entry: &Arc<Entry>| {
        snapshot.svid(&entry.id, Custody::Memory, now).map(|svid| (Arc::clone(entry), svid))
    };
    let svids: Vec<_> = entries.iter().filter_map(svid).collect();
    match svids.is_empty() {
        false => Ok(svids),
        true => {
            let why = entries.iter().find_map(|entry| snapshot.failing(&entry.id, Custody::Memory));
            let why = why.unwrap_or("`keyd-agent status` says why");
            Err(Failure::new(
                Reason::Unreachable,
                format!("this process has an entry, but the agent has no valid SVID for it now: {why}"),
            ))
        }
    }
}
