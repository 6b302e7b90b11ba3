//! The life of keys: made, used, rotated, destroyed. A change is durable before it is acknowledged.

mod audit_key;
mod changes;
mod escrow;
mod guarded;
mod making;
mod migrate;
mod orphans;
mod reseal;
mod using;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use keyd_audit::{Draft, Event, KeyFacts, Origin};
use keyd_core::{Algorithm, Failure, KeyId, Namespace, Protection, Reason, nearest};
use keyd_softkey::SoftKey;
use prost::bytes::Bytes;
use tokio::sync::{OnceCell, OwnedMutexGuard, Semaphore};

use crate::in_force::InForce;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::records::Records;
use crate::store::KeyRecord;

pub use audit_key::audit_key_id;
pub use guarded::{CaKey, ROOT};
pub use orphans::is_ours;

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

/// What became of one key of many that were to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; the key has this protection.
    Done(Protection),
    /// It was so already, under this protection.
    Current(Protection),
    /// It is to be done; nothing was changed.
    Due,
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

    /// The keys that the profile refuses to use, sorted.
    pub fn outside_profile(&self) -> Vec<Arc<Key>> {
        let Some(profile) = self.shared.rules.now().config.profile else { return Vec::new() };
        self.all().into_iter().filter(|key| !profile.allows(key.record.algorithm)).collect()
    }

    fn check_profile(&self, id: &KeyId, algorithm: Algorithm) -> Result<(), Failure> {
        self.shared.rules.now().config.profile.map_or(Ok(()), |profile| profile.check(id, algorithm))
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
        if let Err(failure) = self.shared.places.destroy(record.protection, record.material.expose()).await {
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

/// For a namespace that is not in the configuration; `others` are those of which the caller may be told.
pub fn unknown_namespace<'a>(
    namespace: &Namespace,
    others: impl IntoIterator<Item = &'a Namespace>,
) -> Failure {
    let near = nearest(namespace.as_str(), others.into_iter().map(Namespace::as_str));
    let hint = near.map(|near| format!(". Did you mean {near}? Otherwise")).unwrap_or_else(|| ";".to_owned());
    Failure::new(
        Reason::UnknownNamespace,
        format!(
            "namespace {namespace} is not in keyd.toml{hint} add a [[namespace]] table for it, then `systemctl reload keyd`"
        ),
    )
}

/// Runs a change to its end even if the caller hangs up meanwhile.
pub async fn undisturbed<T: Send + 'static>(
    change: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(keyd_tpm::on_behalf_of(keyd_tpm::user(), change))
        .await
        .unwrap_or_else(|e| Err(Failure::new(Reason::Internal, format!("a change broke off: {e}"))))
}
