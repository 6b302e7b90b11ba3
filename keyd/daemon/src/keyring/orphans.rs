//! Objects in the token that no key uses: what a crash between token and store, or an older store, leaves.

use keyd_audit::{Draft, Event, Origin, Text};
use keyd_core::{Failure, Protection, Reason};

use super::{Keyring, undisturbed};

/// Longest handle that is looked for, in bytes; keyd's own have 16.
const HANDLE_LIMIT: usize = 64;

impl Keyring {
    /// Destroys the object with this handle, which no key uses, once the audit log says so; gives the label that it had. It
    /// goes on if the caller leaves.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for the object of a key, and for a handle of more than 64 bytes; [`Reason::AuditFailed`]; [`Reason::KeyNotFound`] where the token has no such object of keyd's;
    /// the token's own.
    pub async fn remove_orphan(&self, origin: Origin, handle: Vec<u8>) -> Result<String, Failure> {
        if handle.len() > HANDLE_LIMIT {
            let why =
                format!("a CKA_ID of {} bytes is none of keyd's; `keyd doctor` lists those", handle.len());
            return Err(Failure::new(Reason::BadRequest, why));
        }
        let keyring = self.clone();
        undisturbed(async move {
            // A key that is being made has its object before it has its record.
            let _nothing_is_made = keyring.shared.making.write().await;
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
