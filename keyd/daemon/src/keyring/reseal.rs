//! Sealing a key anew, to what the TPM boots now or is to boot.

use std::sync::Arc;

use keyd_audit::{Event, Origin};
use keyd_core::{Failure, KeyId, Protection, Reason, Secret};
use keyd_tpm::{PcrValue, Tpm};

use super::{Key, Keyring, Outcome, facts, undisturbed};
use crate::places;
use crate::store::KeyRecord;

impl Keyring {
    /// The keys that the TPM sealed, sorted.
    pub fn sealed_by_tpm(&self) -> Vec<Arc<Key>> {
        self.all().into_iter().filter(|key| key.record.protection == Protection::TpmSealed).collect()
    }

    /// Seals a key anew, from memory where it was opened before. The new seal is opened once before it takes the place
    /// of the old one.
    ///
    /// # Errors
    /// [`Reason::KeyNotFound`] for one that is gone, or not the TPM's; the TPM's own. The old seal then stays.
    pub async fn reseal(
        &self,
        origin: Origin,
        id: KeyId,
        tpm: Arc<Tpm>,
        expected: Arc<[PcrValue]>,
        dry_run: bool,
    ) -> Result<Outcome, Failure> {
        let keyring = self.clone();
        undisturbed(async move {
            let _lock = keyring.lock(&id).await;
            let key = keyring.find(&id)?;
            if key.record.protection != Protection::TpmSealed {
                return Err(Failure::new(Reason::KeyNotFound, format!("key {id} is not the TPM's any more")));
            }
            let standing = tpm.examine(vec![key.record.material.expose().to_vec()], &expected).await?;
            if standing.iter().all(|standing| standing.current) {
                return Ok(Outcome::Current(Protection::TpmSealed));
            }
            if dry_run {
                return Ok(Outcome::Due);
            }
            let secret = keyring.opened(&key).await?.secret();
            let (record, context) =
                (&key.record, places::context(&id, key.record.version, key.record.algorithm));
            let material = match tpm.seal_expecting(secret, &context, &expected).await {
                Ok(material) => material,
                Err(failure) => {
                    return Err(keyring.seal_failed(origin, &id, Protection::TpmSealed, failure).await);
                }
            };
            let renewed = KeyRecord { material: Secret::new(material), ..record.clone() };
            let soft = keyring.shared.places.open(&renewed).await?;
            keyring.put_recorded(origin, Event::KeyResealed(facts(&renewed)), &renewed).await?;
            tracing::info!(key = %id, version = renewed.version, "key sealed anew");
            keyring.show(Key::new(renewed, Some(soft)));
            Ok(Outcome::Done(Protection::TpmSealed))
        })
        .await
    }
}
