//! Keys that are made, replaced and destroyed at a caller's wish.

use std::sync::Arc;

use keyd_audit::{Draft, Event, Origin};
use keyd_core::{Algorithm, Failure, KeyId, Operation, Protection, Reason};

use super::making::Making;
use super::{Key, Keyring, facts, outcome, undisturbed};

impl Keyring {
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
}
