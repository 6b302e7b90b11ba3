//! How a key comes to be: there is room for it, a place can hold it, it is recorded, and only then shown.

use std::sync::{Arc, PoisonError};

use keyd_audit::{Draft, Event, KeyFacts, Origin};
use keyd_core::{Algorithm, Failure, KeyId, Protection, Reason};
use tokio::sync::SemaphorePermit;

use super::{Key, Keyring, counted, facts, most_keys, unknown_namespace};
use crate::clock::now;
use crate::metrics::Limit;
use crate::store::KeyRecord;

/// Why a key is made.
#[derive(Clone, Copy)]
pub(super) enum Making {
    New,
    Successor,
}

/// What a place made, and the protection that was preferred to it and not to be had.
pub(super) struct Placed<T> {
    pub(super) made: T,
    pub(super) instead_of: Option<Protection>,
}

impl Keyring {
    /// The accepted protections to try, in order.
    pub(super) fn candidates(
        &self,
        id: &KeyId,
        wanted: Option<Protection>,
    ) -> Result<Vec<Protection>, Failure> {
        let namespace = &id.namespace;
        let rules = self.shared.rules.now();
        let accepted = rules.config.protections(namespace).ok_or_else(|| unknown_namespace(namespace, []))?;
        match wanted {
            None => Ok(accepted.to_vec()),
            Some(one) if accepted.contains(&one) => Ok(vec![one]),
            Some(one) => {
                let names: Vec<_> = accepted.iter().map(|p| p.name()).collect();
                Err(Failure::new(
                    Reason::ProtectionUnavailable,
                    format!("namespace {namespace} accepts {}, not {one}", names.join(", ")),
                ))
            }
        }
    }

    /// A place for one more key; given back when dropped.
    pub(super) fn take_place(&self, id: &KeyId) -> Result<SemaphorePermit<'_>, Failure> {
        self.shared.room.try_acquire().map_err(|_| {
            self.metrics().limited(Limit::Keys).inc();
            let most = most_keys(&self.shared.rules);
            Failure::new(
                Reason::LimitExceeded,
                format!(
                    "there is no room for {id}: limits.keys of keyd.toml allows {most} keys. Delete some with \
                     `keyd key delete`, or raise the limit and restart keyd"
                ),
            )
        })
    }

    /// Takes a key off the list, and gives its place back.
    pub(super) fn take_off(&self, id: &KeyId) {
        let left = {
            let mut keys = self.shared.keys.write().unwrap_or_else(PoisonError::into_inner);
            keys.remove(id);
            counted(&keys)
        };
        // Where the limit was lowered below what the store holds, there is none to give.
        if left < most_keys(&self.shared.rules) {
            self.shared.room.add_permits(1);
        }
    }

    /// Makes the key in the first place that can hold it, records it, and only then shows it. It is in the audit log before
    /// it is in the store: whatever happens in between, there is no key that the log does not know.
    pub(super) async fn make(
        &self,
        origin: Origin,
        making: Making,
        id: &KeyId,
        version: u32,
        algorithm: Algorithm,
        candidates: &[Protection],
    ) -> Result<Arc<Key>, Failure> {
        let _making = self.shared.making.read().await;
        self.check_guard(id, algorithm)?;
        self.check_profile(id, algorithm)?;
        let make = |protection| self.shared.places.make(id, version, algorithm, protection);
        let Placed { made, instead_of } = self.first_place(origin, id, algorithm, candidates, make).await?;
        let record = KeyRecord {
            id: id.clone(),
            algorithm,
            protection: made.protection,
            version,
            created_at: now(),
            public_key: made.public_key,
            material: made.material,
        };
        if let Err(failure) = self.put_recorded(origin, making.event(facts(&record)), &record).await {
            self.destroy(&record).await;
            return Err(failure);
        }
        tracing::info!(key = %id, version, %algorithm, protection = %record.protection, "key made");
        self.count_fallback(&record, instead_of);
        Ok(self.show(Key::new(record, made.soft)))
    }

    /// Has the first of these protections hold a key. Those before it that could not are in the audit log; so is a device
    /// that failed in the middle, which ends the search.
    ///
    /// # Errors
    /// That of the last protection that was tried, with what the others had to say.
    pub(super) async fn first_place<T, F>(
        &self,
        origin: Origin,
        id: &KeyId,
        algorithm: Algorithm,
        candidates: &[Protection],
        attempt: impl Fn(Protection) -> F,
    ) -> Result<Placed<T>, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut refused: Vec<(Protection, Failure)> = Vec::new();
        for protection in candidates.iter().copied() {
            match attempt(protection).await {
                Ok(made) => {
                    self.record_fallbacks(origin, id, algorithm, &refused).await;
                    let instead_of = refused.first().map(|(preferred, _)| *preferred);
                    return Ok(Placed { made, instead_of });
                }
                Err(failure) if may_fall_back(failure.reason) => {
                    tracing::warn!(key = %id, %algorithm, %protection, %failure, "protection not available");
                    refused.push((protection, failure));
                }
                Err(failure) => return Err(self.seal_failed(origin, id, protection, failure).await),
            }
        }
        // After the last one, none was tried.
        let Some((protection, failure)) = refused.pop() else {
            let why = format!("nothing on this node can hold {id}");
            return Err(Failure::new(Reason::ProtectionUnavailable, why));
        };
        self.record_fallbacks(origin, id, algorithm, &refused).await;
        let failure = self.seal_failed(origin, id, protection, failure).await;
        Err(after_others(&refused, protection, failure))
    }

    async fn record_fallbacks(
        &self,
        origin: Origin,
        id: &KeyId,
        algorithm: Algorithm,
        refused: &[(Protection, Failure)],
    ) {
        for (protection, failure) in refused {
            let event = Event::Fallback { key: id.clone(), algorithm, protection: *protection };
            self.shared.journal.owe(Draft::failed(origin, event, failure.reason)).await;
        }
    }

    /// Records that a device did not make or seal a key; gives the failure back.
    pub(super) async fn seal_failed(
        &self,
        origin: Origin,
        id: &KeyId,
        protection: Protection,
        failure: Failure,
    ) -> Failure {
        let event = Event::SealFailed { key: id.clone(), protection };
        self.shared.journal.owe(Draft::failed(origin, event, failure.reason)).await;
        failure
    }

    /// Counts a key that has another protection than the preferred one.
    pub(super) fn count_fallback(&self, record: &KeyRecord, instead_of: Option<Protection>) {
        if let Some(preferred) = instead_of {
            self.metrics().fell_back(&record.id.namespace, preferred, record.protection);
        }
    }
}

// === impl Making ===

impl Making {
    const fn event(self, facts: KeyFacts) -> Event {
        match self {
            Self::New => Event::KeyCreated(facts),
            Self::Successor => Event::KeyRotated(facts),
        }
    }
}

/// The failure of the last protection that was tried, with what those before it had to say.
fn after_others(refused: &[(Protection, Failure)], last: Protection, failure: Failure) -> Failure {
    if refused.is_empty() {
        return failure;
    }
    let before = refused.iter().map(|(protection, failure)| format!("{protection}: {}; ", failure.message));
    let said = before.chain([format!("{last}: {}", failure.message)]).collect::<String>();
    Failure::new(failure.reason, format!("no protection that is accepted can be had. {said}"))
}

/// Whether the next protection of the namespace's list may be tried: only when this one cannot hold the key or its
/// device is not there, never after a device failed in the middle.
fn may_fall_back(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ProtectionUnavailable | Reason::TokenAbsent | Reason::TokenLockedOut | Reason::TpmAbsent
    )
}
