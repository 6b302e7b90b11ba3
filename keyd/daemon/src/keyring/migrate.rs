//! Moving a key to another protection. What moves is the secret that keyd has in its hands; a key that was made in the token
//! has none.

use std::sync::Arc;

use keyd_audit::{Event, Origin};
use keyd_core::{Failure, KeyId, Operation, Protection, Reason};

use super::{Key, Keyring, facts, outcome, undisturbed};

impl Keyring {
    /// Moves a key to another protection that its namespace accepts, to a weaker one only with `weaker`. Its id, version and
    /// public key stay. The new seal is opened before it takes the place of the old one, in one write. Gives the protection
    /// that the key had before; one that is there already is left alone.
    ///
    /// It goes on if the caller leaves.
    ///
    /// # Errors
    /// [`Reason::KeyNotFound`]; [`Reason::ProtectionUnavailable`] for a move into the token's own keys or out of them, and
    /// for a protection that the namespace does not accept; [`Reason::BadRequest`] for a weaker one without `weaker`;
    /// [`Reason::ProfileForbids`]; the devices' own. The old seal then stays.
    pub async fn migrate(
        &self,
        origin: Origin,
        id: KeyId,
        to: Protection,
        weaker: bool,
    ) -> Result<(Arc<Key>, Protection), Failure> {
        let call = self.metrics().call(Operation::Migrate, &id.namespace);
        let keyring = self.clone();
        let migrated = undisturbed(async move {
            let _lock = keyring.lock(&id).await;
            let key = keyring.find(&id)?;
            keyring.check_profile(&id, key.record.algorithm)?;
            let before = key.record.protection;
            if before == to {
                return Ok((key, before));
            }
            check(&id, before, to, weaker)?;
            keyring.candidates(&id, Some(to))?;
            keyring.check_records().await?;
            let secret = keyring.opened(&key).await?.secret();
            let (record, soft) = match keyring.shared.places.seal_again(&key.record, to, secret).await {
                Ok(sealed) => sealed,
                Err(failure) => return Err(keyring.seal_failed(origin, &id, to, failure).await),
            };
            keyring.put_recorded(origin, Event::KeyMigrated(facts(&record)), &record).await?;
            tracing::info!(key = %id, version = record.version, %before, protection = %to, "key migrated");
            Ok((keyring.show(Key::new(record, Some(soft))), before))
        })
        .await;
        call.end(outcome(&migrated, |(key, _)| key));
        migrated
    }
}

/// Whether a key can go from one protection to another one.
fn check(id: &KeyId, from: Protection, to: Protection, weaker: bool) -> Result<(), Failure> {
    let impossible = |why: String| Err(Failure::new(Reason::ProtectionUnavailable, why));
    match (from, to) {
        (Protection::Hsm, _) => impossible(format!(
            "key {id} was made in the token and cannot leave it, also not to {to}. `keyd key rotate {id} --protection {to}` \
             makes a new key there in its place"
        )),
        (_, Protection::Hsm) => impossible(format!(
            "a key with the protection hsm was made in the token, and key {id} was not: it is {from}. `keyd key rotate {id} \
             --protection hsm` makes a new key there in its place"
        )),
        // Protections are in order, the strongest first.
        _ if to > from && !weaker => Err(Failure::new(
            Reason::BadRequest,
            format!(
                "{to} is weaker than {from}, which key {id} has; nothing was changed. If that is meant, add --weaker"
            ),
        )),
        _ => Ok(()),
    }
}
