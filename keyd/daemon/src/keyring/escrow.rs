//! Keys that leave in an escrow and come back from one. What was made in the token does neither.

use std::sync::Arc;

use keyd_audit::{Event, Origin};
use keyd_core::{Failure, KeyId, Namespace, Protection, Reason, Secret};
use keyd_escrow::EscrowedKey;

use super::making::Placed;
use super::{Key, Keyring, Outcome, facts, undisturbed};
use crate::store::KeyRecord;

impl Keyring {
    /// The keys of these namespaces, with their secrets, and those that have none to give. Keys that were not used yet are
    /// opened, and not kept open.
    ///
    /// # Errors
    /// Those of [`Keyring::check_records`] and of opening a key, which is named: an escrow without it would be missed too late.
    pub async fn escrow(&self, namespaces: &[Namespace]) -> Result<(Vec<EscrowedKey>, Vec<KeyId>), Failure> {
        self.check_records().await?;
        let (mut keys, mut left_out) = (Vec::new(), Vec::new());
        for key in namespaces.iter().flat_map(|namespace| self.list(namespace)) {
            let record = &key.record;
            if record.protection == Protection::Hsm {
                left_out.push(record.id.clone());
                continue;
            }
            let entry = |soft| EscrowedKey::new(record.id.clone(), record.version, record.created_at, soft);
            keys.push(match key.soft.get() {
                Some(soft) => entry(soft),
                None => {
                    let opened = self.shared.places.open(record).await;
                    entry(&opened.map_err(|f| Failure::new(f.reason, format!("key {}: {f}", record.id)))?)
                }
            });
        }
        Ok((keys, left_out))
    }

    /// Puts a key of an escrow back: under the first protection that its namespace accepts and that works. One that is there
    /// and opens is left alone; one that is there and does not open here any more is sealed anew.
    ///
    /// It goes on if the caller leaves.
    ///
    /// # Errors
    /// [`Reason::KeyExists`] where another key has that name; [`Reason::UnknownNamespace`],
    /// [`Reason::ProtectionUnavailable`], [`Reason::LimitExceeded`], and the devices' own.
    pub async fn restore(&self, origin: Origin, key: EscrowedKey, dry_run: bool) -> Result<Outcome, Failure> {
        let keyring = self.clone();
        undisturbed(async move {
            let _lock = keyring.lock(key.id()).await;
            let _making = keyring.shared.making.read().await;
            keyring.check_records().await?;
            keyring.check_profile(key.id(), key.public_key().algorithm())?;
            keyring.check_guard(key.id(), key.public_key().algorithm())?;
            let known = keyring.find(key.id()).ok();
            let place = match &known {
                Some(known) if known.record.public_key != *key.public_key() => {
                    return Err(other_key(&known.record, &key));
                }
                Some(known) if keyring.opens(&known.record).await? => {
                    return Ok(Outcome::Current(known.record.protection));
                }
                Some(_) => None,
                None => Some(keyring.take_place(key.id())?),
            };
            let candidates = keyring.candidates(key.id(), None)?;
            if dry_run {
                return Ok(Outcome::Due);
            }
            let sealed = keyring.seal_again(origin, &key, &candidates).await?;
            if let Some(place) = place {
                // It is the key's now, until the key is deleted.
                place.forget();
            }
            Ok(Outcome::Done(sealed.record.protection))
        })
        .await
    }

    /// Whether a key is there for good: what it lies under opens. Not so what was sealed by another TPM or token.
    async fn opens(&self, record: &KeyRecord) -> Result<bool, Failure> {
        if record.protection == Protection::Hsm {
            return Ok(true);
        }
        match self.shared.places.open(record).await {
            Ok(_) => Ok(true),
            Err(failure) if is_lost(record.protection, failure.reason) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn seal_again(
        &self,
        origin: Origin,
        key: &EscrowedKey,
        candidates: &[Protection],
    ) -> Result<Arc<Key>, Failure> {
        let (id, algorithm) = (key.id(), key.public_key().algorithm());
        let candidates: Vec<_> = candidates.iter().copied().filter(|p| *p != Protection::Hsm).collect();
        if candidates.is_empty() {
            return Err(Failure::new(
                Reason::ProtectionUnavailable,
                format!(
                    "namespace {} accepts hsm alone, and no key is put into a token: make a new one with `keyd key create \
                     {id}`, or accept hsm-wrapped there",
                    id.namespace
                ),
            ));
        }
        let seal = |protection| {
            let record = KeyRecord {
                id: id.clone(),
                algorithm,
                protection,
                version: key.version(),
                created_at: key.created_at(),
                public_key: key.public_key().clone(),
                material: Secret::new(Vec::new()),
            };
            async move { self.shared.places.seal_again(&record, protection, key.secret()).await }
        };
        let Placed { made: (record, soft), instead_of } =
            self.first_place(origin, id, algorithm, &candidates, seal).await?;
        self.put_recorded(origin, Event::KeyRestored(facts(&record)), &record).await?;
        let (version, protection) = (record.version, record.protection);
        tracing::warn!(key = %id, version, %protection, "key restored from an escrow");
        self.count_fallback(&record, instead_of);
        Ok(self.show(Key::new(record, Some(soft))))
    }
}

/// Whether what was sealed is lost to this node as it is now, and not only away for a while. A token that cannot be used
/// because the TPM does not open its PIN has lost nothing.
fn is_lost(protection: Protection, reason: Reason) -> bool {
    match reason {
        Reason::UnsealFailed | Reason::ProtectionUnavailable => true,
        Reason::TpmReplaced | Reason::PcrChanged | Reason::PolicyOutdated => {
            protection == Protection::TpmSealed
        }
        _ => false,
    }
}

fn other_key(here: &KeyRecord, there: &EscrowedKey) -> Failure {
    let id = &here.id;
    Failure::new(
        Reason::KeyExists,
        format!(
            "another key has the name {id} here (version {}; in the escrow it is version {}): it was replaced since, or the \
             escrow is of another node. If the one in the escrow is wanted, `keyd key delete {id}` first",
            here.version,
            there.version()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_is_not_lost_with_the_pin_of_its_token() {
        let pin = [Reason::PcrChanged, Reason::TpmReplaced, Reason::PolicyOutdated];
        for reason in pin {
            assert!(is_lost(Protection::TpmSealed, reason) && !is_lost(Protection::HsmWrapped, reason));
        }
        assert!(is_lost(Protection::HsmWrapped, Reason::UnsealFailed), "of another token");
        for away in [Reason::TpmAbsent, Reason::TokenAbsent, Reason::TokenFailed, Reason::DeadlineExceeded] {
            assert!(!is_lost(Protection::TpmSealed, away) && !is_lost(Protection::HsmWrapped, away));
        }
    }
}
