//! The life of keys: made, used, rotated, destroyed. A change is durable before it is acknowledged.

mod audit_key;
mod escrow;
mod guarded;
mod migrate;
mod orphans;
mod reseal;
mod using;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use keyd_audit::{Draft, Event, KeyFacts, Origin};
use keyd_core::{Algorithm, Failure, KeyId, Namespace, Operation, Protection, Reason};
use keyd_softkey::SoftKey;
use prost::bytes::Bytes;
use tokio::sync::{OnceCell, OwnedMutexGuard, Semaphore, SemaphorePermit};

pub use escrow::Restored;
pub use reseal::Resealed;

use crate::in_force::InForce;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::records::Records;
use crate::store::KeyRecord;

pub use audit_key::{OWN_NAMESPACE, audit_key_id};
pub use guarded::CaKey;

/// All keys of this node.
#[derive(Clone)]
pub struct Keyring {
    shared: Arc<Shared>,
}

struct Shared {
    rules: InForce,
    places: Places,
    records: Records,
    journal: Journal,
    keys: RwLock<BTreeMap<KeyId, Arc<Key>>>,
    /// Places for more keys: what `limits.keys` leaves beside those that there are and those being made.
    room: Semaphore,
    metrics: Metrics,
    /// Held for reading while a key is made, and for writing while no key may be.
    making: tokio::sync::RwLock<()>,
    /// One change at a time per key.
    changing: Mutex<HashMap<KeyId, Arc<tokio::sync::Mutex<()>>>>,
}

/// A recorded key, and the opened private key once it was needed.
pub struct Key {
    /// The record, as the store has it.
    pub record: KeyRecord,
    /// Of its public key; 32 bytes, computed once because every signature names it.
    pub fingerprint: Bytes,
    soft: OnceCell<SoftKey>,
}

/// Why a key is made.
#[derive(Clone, Copy)]
enum Making {
    New,
    Successor,
}

impl Keyring {
    /// Loads every record. Nothing is unsealed yet.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`]; [`Reason::BadConfig`] for an issuance profile of a key that signs digests.
    pub fn load(rules: InForce, places: Places, records: Records, journal: Journal) -> Result<Self, Failure> {
        let keys: BTreeMap<_, _> =
            records.load()?.into_iter().map(|r| (r.id.clone(), Arc::new(Key::new(r, None)))).collect();
        let guarded = |id: &KeyId| rules.now().config.issuance_profile(id).is_some();
        guarded::check_records(keys.values().map(|key| &key.record), guarded)?;
        let room = Semaphore::new(most_keys(&rules).saturating_sub(counted(&keys)));
        let (keys, changing, making) = (RwLock::new(keys), Mutex::default(), tokio::sync::RwLock::default());
        let metrics = Metrics::new();
        Ok(Self {
            shared: Arc::new(Shared {
                rules,
                places,
                records,
                journal,
                keys,
                room,
                metrics,
                making,
                changing,
            }),
        })
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// One key.
    ///
    /// # Errors
    /// [`Reason::KeyNotFound`].
    pub fn find(&self, id: &KeyId) -> Result<Arc<Key>, Failure> {
        let keys = self.shared.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(id).cloned().ok_or_else(|| {
            Failure::new(
                Reason::KeyNotFound,
                format!("key {id} does not exist; `keyd key list` shows those that do"),
            )
        })
    }

    /// The keys of a namespace, sorted.
    pub fn list(&self, namespace: &Namespace) -> Vec<Arc<Key>> {
        let keys = self.shared.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.values().filter(|k| k.record.id.namespace == *namespace).cloned().collect()
    }

    /// Every key, sorted.
    pub fn all(&self) -> Vec<Arc<Key>> {
        self.shared.keys.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.shared.keys.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends all changes; see [`Records::close`].
    ///
    /// # Errors
    /// [`Reason::StoreFailed`].
    pub async fn close(&self) -> Result<(), Failure> {
        self.shared.records.close().await
    }

    /// Succeeds where the store is no older copy; see [`Records::check`].
    ///
    /// # Errors
    /// As [`Records::check`].
    pub async fn check_records(&self) -> Result<(), Failure> {
        self.shared.records.check().await
    }

    /// Makes a key under `protection`, or under the first in the namespace's order that can hold it.
    ///
    /// It goes on if the caller leaves, so that no key is half made.
    ///
    /// # Errors
    /// [`Reason::KeyExists`], [`Reason::UnknownNamespace`], [`Reason::ProtectionUnavailable`],
    /// [`Reason::LimitExceeded`], and the devices' own.
    pub async fn create(
        &self,
        origin: Origin,
        id: KeyId,
        algorithm: Algorithm,
        protection: Option<Protection>,
    ) -> Result<Arc<Key>, Failure> {
        let call = self.metrics().call(Operation::Create, &id.namespace);
        let keyring = self.clone();
        let made = undisturbed(async move {
            let _lock = keyring.lock(&id).await;
            if keyring.find(&id).is_ok() {
                return Err(Failure::new(
                    Reason::KeyExists,
                    format!("key {id} exists already; `keyd key rotate {id}` replaces it"),
                ));
            }
            let place = keyring.take_place(&id)?;
            let candidates = keyring.candidates(&id, protection)?;
            let made = keyring.make(origin, Making::New, &id, 1, algorithm, &candidates).await?;
            // It is the key's now, until the key is deleted.
            place.forget();
            Ok(made)
        })
        .await;
        call.end(outcome(&made, |key| key));
        made
    }

    /// Replaces a key by a new one, under the same protection unless another is given; the old private key is destroyed.
    ///
    /// # Errors
    /// [`Reason::KeyNotFound`] and those of [`Keyring::create`]; the old key then stays.
    pub async fn rotate(
        &self,
        origin: Origin,
        id: KeyId,
        algorithm: Option<Algorithm>,
        protection: Option<Protection>,
    ) -> Result<Arc<Key>, Failure> {
        let call = self.metrics().call(Operation::Rotate, &id.namespace);
        let keyring = self.clone();
        let made = undisturbed(async move {
            let _lock = keyring.lock(&id).await;
            let old = keyring.find(&id)?;
            let algorithm = algorithm.unwrap_or(old.record.algorithm);
            // Another algorithm may be one that this token cannot hold: then the namespace's order decides again.
            let candidates = match protection {
                None if algorithm == old.record.algorithm => vec![old.record.protection],
                wanted => keyring.candidates(&id, wanted)?,
            };
            let version = old.record.version.saturating_add(1);
            let new = keyring.make(origin, Making::Successor, &id, version, algorithm, &candidates).await?;
            keyring.destroy(&old.record).await;
            Ok(new)
        })
        .await;
        call.end(outcome(&made, |key| key));
        made
    }

    /// Destroys a key.
    ///
    /// # Errors
    /// [`Reason::KeyNotFound`]; [`Reason::StoreFailed`] or [`Reason::AuditFailed`], and the key then stays.
    pub async fn delete(&self, origin: Origin, id: KeyId) -> Result<(), Failure> {
        let call = self.metrics().call(Operation::Delete, &id.namespace);
        let keyring = self.clone();
        let gone = undisturbed(async move {
            let _lock = keyring.lock(&id).await;
            let old = keyring.find(&id)?;
            let event = Event::KeyDeleted(facts(&old.record));
            keyring.shared.journal.append(vec![Draft::done(origin, event.clone())]).await?;
            if let Err(failure) = keyring.shared.records.remove(&id).await {
                keyring.undone(origin, event, &failure).await;
                return Err(failure);
            }
            keyring.take_off(&id);
            keyring.destroy(&old.record).await;
            tracing::info!(key = %id, version = old.record.version, "key deleted");
            Ok(())
        })
        .await;
        call.end(gone.as_ref().map(|()| None).map_err(|failure| failure.reason));
        gone
    }

    /// The keys that the profile refuses to use, sorted.
    pub fn outside_profile(&self) -> Vec<Arc<Key>> {
        let Some(profile) = self.shared.rules.now().config.profile else { return Vec::new() };
        self.all().into_iter().filter(|key| !profile.allows(key.record.algorithm)).collect()
    }

    fn check_profile(&self, id: &KeyId, algorithm: Algorithm) -> Result<(), Failure> {
        self.shared.rules.now().config.profile.map_or(Ok(()), |profile| profile.check(id, algorithm))
    }

    /// The accepted protections to try, in order.
    fn candidates(&self, id: &KeyId, wanted: Option<Protection>) -> Result<Vec<Protection>, Failure> {
        let namespace = &id.namespace;
        let rules = self.shared.rules.now();
        let accepted = rules.config.protections(namespace).ok_or_else(|| unknown_namespace(namespace))?;
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
    fn take_place(&self, id: &KeyId) -> Result<SemaphorePermit<'_>, Failure> {
        self.shared.room.try_acquire().map_err(|_| {
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
    fn take_off(&self, id: &KeyId) {
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
    async fn make(
        &self,
        origin: Origin,
        making: Making,
        id: &KeyId,
        version: u32,
        algorithm: Algorithm,
        candidates: &[Protection],
    ) -> Result<Arc<Key>, Failure> {
        self.check_guard(id, algorithm)?;
        let _making = self.shared.making.read().await;
        self.check_profile(id, algorithm)?;
        let (mut refusal, mut fallbacks) = (None, Vec::new());
        for protection in candidates {
            let made = match self.shared.places.make(id, version, algorithm, *protection).await {
                Ok(made) => made,
                Err(failure) if may_fall_back(failure.reason) => {
                    tracing::warn!(key = %id, %algorithm, %protection, %failure, "protection not available");
                    let event = Event::Fallback { key: id.clone(), algorithm, protection: *protection };
                    fallbacks.push(Draft::failed(origin, event, failure.reason));
                    refusal = Some(failure);
                    continue;
                }
                Err(failure) => {
                    let event = Event::SealFailed { key: id.clone(), protection: *protection };
                    self.shared.journal.owe(Draft::failed(origin, event, failure.reason)).await;
                    return Err(failure);
                }
            };
            let record = KeyRecord {
                id: id.clone(),
                algorithm,
                protection: made.protection,
                version,
                created_at: now(),
                public_key: made.public_key,
                material: made.material,
            };
            let event = making.event(facts(&record));
            for draft in fallbacks {
                self.shared.journal.owe(draft).await;
            }
            if let Err(failure) = self.put_recorded(origin, event, &record).await {
                self.destroy(&record).await;
                return Err(failure);
            }
            tracing::info!(key = %id, version, %algorithm, protection = %record.protection, "key made");
            if let (Some(_), Some(preferred)) = (&refusal, candidates.first()) {
                self.metrics().fell_back(&id.namespace, *preferred, record.protection);
            }
            return Ok(self.show(Key::new(record, made.soft)));
        }
        Err(refusal.unwrap_or_else(|| {
            Failure::new(Reason::ProtectionUnavailable, format!("nothing on this node can hold {id}"))
        }))
    }

    /// Shows a key that is recorded, in place of one of the same id.
    fn show(&self, key: Key) -> Arc<Key> {
        let key = Arc::new(key);
        let mut keys = self.shared.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.record.id.clone(), Arc::clone(&key));
        key
    }

    /// Puts a record in the store once the log says so.
    async fn put_recorded(&self, origin: Origin, event: Event, record: &KeyRecord) -> Result<(), Failure> {
        self.shared.journal.append(vec![Draft::done(origin, event.clone())]).await?;
        if let Err(failure) = self.shared.records.put(record).await {
            self.undone(origin, event, &failure).await;
            return Err(failure);
        }
        Ok(())
    }

    /// What the log says was done was not: it says so too.
    async fn undone(&self, origin: Origin, event: Event, failure: &Failure) {
        self.shared.journal.owe(Draft::failed(origin, event, failure.reason)).await;
    }

    /// Destroys what lies outside the record. A failure leaves an object without a record, which is reported, and takes
    /// nothing from the caller: the key is gone either way.
    async fn destroy(&self, record: &KeyRecord) {
        if let Err(failure) = self.shared.places.destroy(record.protection, &record.material).await {
            tracing::warn!(key = %record.id, version = record.version, %failure, "an old private key stays in the token");
        }
    }

    async fn lock(&self, id: &KeyId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut changing = self.shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
            // Locks that nobody holds or awaits are forgotten, so that the map stays small.
            changing.retain(|_, lock| Arc::strong_count(lock) > 1);
            changing.entry(id.clone()).or_default().clone()
        };
        lock.lock_owned().await
    }
}

// === impl Key ===

impl Key {
    fn new(record: KeyRecord, soft: Option<SoftKey>) -> Self {
        let fingerprint = record.public_key.fingerprint().to_vec().into();
        Self { record, fingerprint, soft: OnceCell::new_with(soft) }
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

/// What is counted: the protection of the key that did it, or why it was not done.
fn outcome<T>(
    result: &Result<T, Failure>,
    key: impl FnOnce(&T) -> &Arc<Key>,
) -> Result<Option<Protection>, Reason> {
    result.as_ref().map(|done| Some(key(done).record.protection)).map_err(|failure| failure.reason)
}

fn facts(record: &KeyRecord) -> KeyFacts {
    KeyFacts {
        key: record.id.clone(),
        algorithm: record.algorithm,
        protection: record.protection,
        version: record.version,
        fingerprint: record.public_key.fingerprint(),
    }
}

/// The keys that the limit counts: all but keyd's own.
fn counted(keys: &BTreeMap<KeyId, Arc<Key>>) -> usize {
    keys.len() - usize::from(audit_key_id().is_ok_and(|id| keys.contains_key(&id)))
}

fn most_keys(rules: &InForce) -> usize {
    rules.now().config.limits.keys.min(Semaphore::MAX_PERMITS)
}

/// For a namespace that is not in the configuration.
pub fn unknown_namespace(namespace: &Namespace) -> Failure {
    Failure::new(
        Reason::UnknownNamespace,
        format!(
            "namespace {namespace} is not in keyd.toml; add a [[namespace]] table for it, then `systemctl reload keyd`"
        ),
    )
}

/// Whether the next protection of the namespace's list may be tried: only when this one cannot hold the key or its
/// device is not there, never after a device failed in the middle.
fn may_fall_back(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ProtectionUnavailable | Reason::TokenAbsent | Reason::TokenLockedOut | Reason::TpmAbsent
    )
}

/// Runs a change to its end even if the caller hangs up meanwhile.
async fn undisturbed<T: Send + 'static>(
    change: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(change)
        .await
        .unwrap_or_else(|e| Err(Failure::new(Reason::Internal, format!("a change broke off: {e}"))))
}

/// Seconds since 1970-01-01T00:00:00Z.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}
