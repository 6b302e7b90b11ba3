//! keyd's own key: it signs the audit log, and nobody can ask for it.

use std::sync::Arc;

use keyd_audit::Origin;
use keyd_core::{Algorithm, Failure, KeyId};

use super::making::Making;
use super::{Key, Keyring, undisturbed};
use crate::config::OWN_NAMESPACE;

/// The id of the audit key.
///
/// # Errors
/// Never, since it is well formed.
pub fn audit_key_id() -> Result<KeyId, Failure> {
    format!("{OWN_NAMESPACE}/audit").parse()
}

impl Keyring {
    /// The key that signs the audit log; made where there is none, in the strongest protection that can be had. It is of
    /// the strongest ML-DSA, since a log is kept for long.
    ///
    /// # Errors
    /// The devices', when it cannot be made now.
    pub async fn audit_key(&self) -> Result<Arc<Key>, Failure> {
        let id = audit_key_id()?;
        if let Ok(key) = self.find(&id) {
            return Ok(key);
        }
        let keyring = self.clone();
        undisturbed(async move {
            let _lock = keyring.lock(&id).await;
            if let Ok(key) = keyring.find(&id) {
                return Ok(key);
            }
            let candidates = keyring.shared.rules.now().config.audit_protections();
            keyring.make(Origin::KEYD, Making::New, &id, 1, Algorithm::MlDsa87, &candidates).await
        })
        .await
    }
}
