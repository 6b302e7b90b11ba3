//! Keys that the TPM derives anew from a template and its seed, so that nothing is stored.

use tss_esapi::Context;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::Public;
use tss_esapi::utils::TpmsContext;

use crate::error::{Doing, Error};

/// A primary key of the Endorsement hierarchy.
///
/// Deriving one takes a TPM up to seconds (RSA far longer), so its context, encrypted by the TPM, is kept once it
/// was loaded.
pub(crate) struct Primary {
    template: Public,
    saved: Option<TpmsContext>,
}

impl Primary {
    pub(crate) const fn new(template: Public) -> Self {
        Self { template, saved: None }
    }

    /// Loads the key as a transient object, which the caller flushes.
    pub(crate) fn load(&mut self, context: &mut Context) -> Result<KeyHandle, Error> {
        if let Some(saved) = self.saved.take() {
            // A context does not outlive a reset of the TPM; then the key is derived again.
            if let Ok(handle) = context.context_load(saved.clone()) {
                self.saved = Some(saved);
                return Ok(handle.into());
            }
        }
        let handle = create(context, Hierarchy::Endorsement, &self.template)?;
        match context.context_save(handle.into()) {
            Ok(saved) => self.saved = Some(saved),
            Err(error) => {
                tracing::warn!(%error, "cannot keep a derived key's context; it is derived at each use")
            }
        }
        Ok(handle)
    }
}

/// Derives a primary key as a transient object; the hierarchy has no password.
pub(crate) fn create(
    context: &mut Context,
    hierarchy: Hierarchy,
    template: &Public,
) -> Result<KeyHandle, Error> {
    context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.create_primary(hierarchy, template.clone(), None, None, None, None)
        })
        .map(|created| created.key_handle)
        .doing("derive a primary key")
}
