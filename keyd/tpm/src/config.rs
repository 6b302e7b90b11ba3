//! What keyd is told about its TPM.

use std::time::Duration;

use crate::{PolicySource, SealTo, Tcti};

/// Which TPM, and what is known of it.
#[derive(Clone, Debug)]
pub struct TpmConfig {
    /// Where it is.
    pub tcti: Tcti,
    /// The persistent handle of its storage root key.
    pub srk_handle: u32,
    /// The Name of its storage root key as [`crate::Tpm::ensure_srk`] gave it at enrolment. With none, whatever is at the
    /// handle is trusted, and made where there is nothing.
    pub srk_name: Option<Vec<u8>>,
    /// What new secrets are sealed to.
    pub seal_to: SealTo,
    /// The signed policy, for [`SealTo::SignedPolicy`] and for what was sealed to it before.
    pub policy_source: Option<PolicySource>,
    /// How long a call may take, waiting for its turn included. Deriving an RSA key takes some TPMs a minute.
    pub call_deadline: Duration,
}

impl TpmConfig {
    /// The handle that the TCG reserves for the storage root key.
    pub const SRK_HANDLE: u32 = 0x8100_0001;
    /// Long enough for a slow TPM to find its endorsement key.
    pub const CALL_DEADLINE: Duration = Duration::from_secs(60);

    /// The usual configuration, nothing pinned.
    pub const fn new(tcti: Tcti) -> Self {
        Self {
            tcti,
            srk_handle: Self::SRK_HANDLE,
            srk_name: None,
            seal_to: SealTo::ThisTpm,
            policy_source: None,
            call_deadline: Self::CALL_DEADLINE,
        }
    }
}
