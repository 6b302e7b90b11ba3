//! Objects in the token that no key uses: what a crash between token and store, or an older store, leaves.

use keyd_core::{Failure, Protection, Reason};

use super::{Keyring, undisturbed};

impl Keyring {
    /// Destroys the object with this handle, which no key uses; gives the label that it had. It goes on if the caller leaves.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for the object of a key; [`Reason::KeyNotFound`] where the token has no such object of keyd's;
    /// the token's own.
    pub async fn remove_orphan(&self, handle: Vec<u8>) -> Result<String, Failure> {
        let keyring = self.clone();
        undisturbed(async move {
            // A key that is being made has its object before it has its record.
            let _nothing_is_made = keyring.shared.making.write().await;
            let name = hex::encode(&handle);
            let uses = |key: &&std::sync::Arc<super::Key>| {
                key.record.protection == Protection::Hsm && key.record.material == handle
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
            keyring.shared.places.destroy(Protection::Hsm, &handle).await?;
            tracing::warn!(object = name, label = orphan.label, "token object removed that no key used");
            Ok(orphan.label)
        })
        .await
    }
}
