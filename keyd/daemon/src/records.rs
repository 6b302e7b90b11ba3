//! The records of keys, bound to a counter in the TPM, so that an older copy of the store is noticed.
//!
//! Each change is written with the number that the counter is to have after it, and then the counter is moved there. So a
//! whole store is at the counter, or one ahead of it where keyd was killed in between; one that is behind is older. A
//! change whose count failed is taken back in the store, still with the number that it had: whether the count arrived
//! after all, the store then fits either way.

use std::sync::Arc;

use keyd_core::{Failure, KeyId, Reason, Secret};
use keyd_tpm::{Counter, Tpm};
use keyd_unix::off_worker;
use prost::Message;
use tokio::sync::{Mutex, OnceCell};
use zeroize::Zeroize;

use crate::store::{self, KeyRecord, Store};

/// Longest binding, in bytes.
const BINDING_LIMIT: usize = 256;

/// The store, and what it is bound to.
pub struct Records {
    store: Store,
    guard: Option<Guard>,
}

struct Guard {
    tpm: Arc<Tpm>,
    handle: u32,
    /// Whether the store was found to be no older copy, and at what it is bound. One change at a time.
    binding: OnceCell<Mutex<Binding>>,
}

/// The counter's number in the store, and what opens it.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Stored {
    #[prost(uint32, tag = "1")]
    handle: u32,
    #[prost(bytes = "vec", tag = "2")]
    authorization: Vec<u8>,
    /// 0 while the counter is being made.
    #[prost(uint64, tag = "3")]
    value: u64,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.authorization.zeroize();
    }
}

#[derive(Clone)]
struct Binding {
    handle: u32,
    authorization: Secret,
    value: u64,
    /// Whether the counter is there too, as far as is known.
    counted: bool,
}

/// What [`Records::accept`] found, and did.
pub struct Accepted {
    /// The number in the store; none where it was bound to nothing.
    pub store: Option<u64>,
    /// What the TPM had.
    pub counter: Counter,
    /// The number that both have now.
    pub now: u64,
}

impl Records {
    /// The store alone.
    pub const fn unguarded(store: Store) -> Self {
        Self { store, guard: None }
    }

    /// The store, bound to the counter at `handle`. Nothing is asked of the TPM yet.
    pub fn guarded(store: Store, tpm: Arc<Tpm>, handle: u32) -> Self {
        Self { store, guard: Some(Guard { tpm, handle, binding: OnceCell::new() }) }
    }

    /// Every record.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`].
    pub fn load(&self) -> Result<Vec<KeyRecord>, Failure> {
        self.store.load()
    }

    /// Ends all changes; see [`Store::close`].
    ///
    /// # Errors
    /// [`Reason::StoreFailed`].
    pub async fn close(&self) -> Result<(), Failure> {
        let store = self.store.clone();
        off_worker(move || store.close()).await
    }

    /// Succeeds where the store is no older copy. Once that is known, it asks nobody any more.
    ///
    /// # Errors
    /// [`Reason::StoreRolledBack`]; [`Reason::StoreFailed`]; the TPM's own, and then it is asked again the next time.
    pub async fn check(&self) -> Result<(), Failure> {
        match &self.guard {
            Some(guard) => guard.binding(&self.store).await.map(drop),
            None => Ok(()),
        }
    }

    /// Writes a record, in place of one of the same id; durable and counted when it returns.
    ///
    /// # Errors
    /// As [`Records::check`]; the store is then as before.
    pub async fn put(&self, record: &KeyRecord) -> Result<(), Failure> {
        self.change(&record.id, Some(store::encode(record))).await
    }

    /// Removes a record; durable and counted when it returns.
    ///
    /// # Errors
    /// As [`Records::check`]; the store is then as before.
    pub async fn remove(&self, id: &KeyId) -> Result<(), Failure> {
        self.change(id, None).await
    }

    async fn change(&self, id: &KeyId, record: Option<Secret>) -> Result<(), Failure> {
        let Some(guard) = &self.guard else {
            return self.write(id, record, None).await.map(drop);
        };
        let mut binding = guard.binding(&self.store).await?.lock().await;
        // Where the count of an earlier change failed, it comes first.
        guard.advance(&mut binding).await?;
        let value = binding.value.saturating_add(1);
        let next = Binding { value, counted: false, ..binding.clone() };
        let before = self.write(id, record, Some(&next)).await?;
        *binding = next;
        if let Err(failure) = guard.advance(&mut binding).await {
            self.write(id, before, None).await?;
            return Err(failure);
        }
        Ok(())
    }

    async fn write(
        &self,
        id: &KeyId,
        record: Option<Secret>,
        binding: Option<&Binding>,
    ) -> Result<Option<Secret>, Failure> {
        let (store, id, binding) = (self.store.clone(), id.clone(), binding.map(Binding::encode));
        off_worker(move || {
            store.change(&id, record.as_ref().map(Secret::expose), binding.as_ref().map(Secret::expose))
        })
        .await
    }

    /// Binds the store as it is to the TPM's counter as it is, whatever was found.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`]; the TPM's own.
    pub async fn accept(store: Store, tpm: Arc<Tpm>, handle: u32) -> Result<Accepted, Failure> {
        let guard = Guard { tpm, handle, binding: OnceCell::new() };
        let bound = Binding::read(&store).await?;
        let authorization = bound.as_ref().map(|b| &b.authorization);
        let counter = guard.tpm.counter(handle, authorization).await?;
        let was = bound.as_ref().map(|b| b.value);
        let binding = match (bound, counter) {
            // One ahead of all that there was, so that no other copy fits any more.
            (Some(bound), Counter::At(value)) if bound.handle == handle => {
                let mut binding = Binding { value: value.saturating_add(1), counted: false, ..bound };
                binding.save(&store).await?;
                guard.advance(&mut binding).await?;
                binding
            }
            _ => {
                guard.tpm.remove_counter(handle).await?;
                guard.bind(&store).await?
            }
        };
        Ok(Accepted { store: was, counter, now: binding.value })
    }
}

// === impl Guard ===

impl Guard {
    async fn binding(&self, store: &Store) -> Result<&Mutex<Binding>, Failure> {
        let checked = || async { self.check(store).await.map(Mutex::new).map_err(unknown) };
        self.binding.get_or_try_init(checked).await
    }

    async fn check(&self, store: &Store) -> Result<Binding, Failure> {
        let handle = self.handle;
        let Some(mut binding) = Binding::read(store).await? else {
            return match self.tpm.counter(handle, None).await? {
                Counter::Absent => self.bind(store).await,
                _ => Err(rolled_back(format!(
                    "this store is bound to no counter, and the TPM has one at {handle:#x}: it is a new store, or a \
                     copy from before it was bound, or another keyd's counter is there, and this one needs another \
                     counter_handle"
                ))),
            };
        };
        if binding.handle != handle {
            return Err(rolled_back(format!(
                "this store is bound to the counter at {:#x}, and counter_handle in keyd.toml says {handle:#x}",
                binding.handle
            )));
        }
        let found = self.tpm.counter(handle, Some(&binding.authorization)).await?;
        match found {
            Counter::At(value) if value == binding.value => Ok(Binding { counted: true, ..binding }),
            // keyd was killed between the change and its count.
            Counter::At(value) if value.checked_add(1) == Some(binding.value) => {
                self.advance(&mut binding).await?;
                Ok(binding)
            }
            // keyd was killed while it bound the store for the first time.
            Counter::Absent | Counter::Unused | Counter::At(_) if binding.value == 0 => {
                self.tpm.remove_counter(handle).await?;
                self.bind(store).await
            }
            Counter::At(value) if value > binding.value => Err(rolled_back(format!(
                "this store is an older copy: it is at change {} and the TPM's counter at {value}. Keys that were \
                 deleted or replaced since are in it, and keys made since are not. Put back the newest copy",
                binding.value
            ))),
            Counter::At(value) => Err(rolled_back(format!(
                "the TPM's counter is at {value}, behind the store, which is at change {}: the TPM was restored from a \
                 copy, as a virtual machine's can be, or it is another one",
                binding.value
            ))),
            Counter::Absent | Counter::Unused | Counter::Foreign => Err(rolled_back(format!(
                "the counter at {handle:#x} that this store is bound to is not the TPM's: the TPM was cleared, or \
                 somebody deleted the counter or made another one"
            ))),
        }
    }

    /// Makes a counter and binds the store to it. What opens the counter is on disk before it is made.
    async fn bind(&self, store: &Store) -> Result<Binding, Failure> {
        let authorization = self.tpm.counter_authorization()?;
        let mut binding = Binding { handle: self.handle, authorization, value: 0, counted: true };
        binding.save(store).await?;
        binding.value = self.tpm.make_counter(self.handle, &binding.authorization).await?;
        binding.save(store).await?;
        tracing::info!(handle = format!("{:#x}", self.handle), "the store is bound to the TPM's counter");
        Ok(binding)
    }

    /// Has the counter go where the store is.
    async fn advance(&self, binding: &mut Binding) -> Result<(), Failure> {
        if !binding.counted {
            self.tpm.advance_counter(self.handle, &binding.authorization, binding.value).await?;
            binding.counted = true;
        }
        Ok(())
    }
}

// === impl Binding ===

impl Binding {
    async fn read(store: &Store) -> Result<Option<Self>, Failure> {
        let store = store.clone();
        let Some(bytes) = off_worker(move || store.binding()).await? else { return Ok(None) };
        let damaged = |why: &str| {
            let say =
                format!("what binds the store to the TPM's counter cannot be read: {why}. Put back a backup");
            Failure::new(Reason::StoreFailed, say)
        };
        Self::decode(bytes.expose()).map(Some).map_err(|why| damaged(&why))
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > BINDING_LIMIT {
            return Err("it is too long".to_owned());
        }
        let mut stored = Stored::decode(bytes).map_err(|e| e.to_string())?;
        let authorization = Secret::new(std::mem::take(&mut stored.authorization));
        Ok(Self { handle: stored.handle, authorization, value: stored.value, counted: false })
    }

    async fn save(&self, store: &Store) -> Result<(), Failure> {
        let (store, bytes) = (store.clone(), self.encode());
        off_worker(move || store.bind(bytes.expose())).await
    }

    fn encode(&self) -> Secret {
        let authorization = self.authorization.expose().to_vec();
        let stored = Stored { handle: self.handle, authorization, value: self.value };
        Secret::new(stored.encode_to_vec())
    }
}

/// For a store of which nobody can tell.
fn unknown(failure: Failure) -> Failure {
    match failure.reason {
        Reason::StoreRolledBack | Reason::StoreFailed => failure,
        reason => Failure::new(
            reason,
            format!(
                "no key is used before the TPM's counter tells whether the store is an older copy: {failure}"
            ),
        ),
    }
}

/// Reads what binds a store, and checks that it is written so that it reads the same.
#[cfg(fuzzing)]
pub(crate) fn fuzz_binding(bytes: &[u8]) {
    if let Ok(binding) = Binding::decode(bytes) {
        let written = binding.encode();
        assert!(
            Binding::decode(written.expose()).is_ok_and(|again| again.encode().expose() == written.expose())
        );
    }
}

fn rolled_back(why: String) -> Failure {
    let say = format!("{why}; or `keyd accept-store` accepts this store as it is, with keyd stopped");
    Failure::new(Reason::StoreRolledBack, say)
}
