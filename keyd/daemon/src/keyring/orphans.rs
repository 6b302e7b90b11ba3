//! Objects in the token that no key uses: what a crash between token and store, or an older store, leaves.

use keyd_audit::{Draft, Event, Origin, Text};
use keyd_core::{Failure, Protection, Reason};
use keyd_pkcs11::HANDLE_LEN;
use tokio::sync::RwLockWriteGuard;

use super::{Keyring, undisturbed};

/// Whether a token object can be keyd's, by the handle that it has.
pub fn is_ours(handle: &[u8]) -> bool {
    handle.len() == HANDLE_LEN
}

impl Keyring {
    /// Waits until no key is being made, and lets none begin while the guard lives.
    pub async fn nothing_is_made(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.making.write().await
    }

    /// Destroys the object with this handle, which no key uses, once the audit log says so; gives the label that it had. It
    /// goes on if the caller leaves.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for the object of a key, and for a handle that keyd does not give; [`Reason::AuditFailed`];
    /// [`Reason::KeyNotFound`] where the token has no such object of keyd's; the token's own.
    pub async fn remove_orphan(&self, origin: Origin, handle: Vec<u8>) -> Result<String, Failure> {
        if !is_ours(&handle) {
            let why = format!(
                "keyd gives objects a CKA_ID of {HANDLE_LEN} bytes, this one has {}; remove it with the token's own tools",
                handle.len()
            );
            return Err(Failure::new(Reason::BadRequest, why));
        }
        let keyring = self.clone();
        undisturbed(async move {
            // A key that is being made has its object before it has its record.
            let _nothing_is_made = keyring.nothing_is_made().await;
            let name = hex::encode(&handle);
            let uses = |key: &&std::sync::Arc<super::Key>| {
                key.record.protection == Protection::Hsm && key.record.material.expose() == handle
            };
            if let Some(key) = keyring.all().iter().find(uses) {
                let id = &key.record.id;
                let why =
                    format!("object {name} is the private key of {id}; `keyd key delete {id}` destroys it");
                return Err(Failure::new(Reason::BadRequest, why));
            }
            let held = keyring.shared.places.held_keys().await?;
            let Some(orphan) = held.into_iter().find(|held| held.handle == handle) else {
                let why = format!(
                    "the token holds no object {name} of keyd's; `keyd doctor` lists those without a key"
                );
                return Err(Failure::new(Reason::KeyNotFound, why));
            };
            let event = Event::OrphanRemoved { object: Text::cut(&name), label: Text::cut(&orphan.label) };
            keyring.shared.journal.append(vec![Draft::done(origin, event.clone())]).await?;
            if let Err(failure) = keyring.shared.places.destroy(Protection::Hsm, &handle).await {
                keyring.undone(origin, event, &failure).await;
                return Err(failure);
            }
            tracing::warn!(object = name, label = orphan.label, "token object removed that no key used");
            Ok(orphan.label)
        })
        .await
    }
}
