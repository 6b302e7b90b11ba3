//! What `Reseal` of `keyd.v1.AdminService` is asked with.

use keyd_api::v1;
use keyd_core::{Failure, Reason};
use keyd_tpm::PcrValue;

/// PCRs with the values that they are to have.
///
/// # Errors
/// [`Reason::BadRequest`].
pub fn expected(values: Vec<v1::PcrValue>) -> Result<Vec<PcrValue>, Failure> {
    let read = |pcr: v1::PcrValue| {
        let index = u8::try_from(pcr.index).ok()?;
        Some(PcrValue { index, value: pcr.value.as_ref().try_into().ok()? })
    };
    let values: Option<Vec<_>> = values.into_iter().map(read).collect();
    values.ok_or_else(|| Failure::new(Reason::BadRequest, "a PCR's value is a SHA-256, 32 bytes"))
}
