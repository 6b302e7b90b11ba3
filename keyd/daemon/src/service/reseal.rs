//! Sealing all keys anew, over `keyd.v1.AdminService`.

use std::sync::Arc;

use keyd_api::v1;
use keyd_audit::Origin;
use keyd_core::{Failure, Reason};
use keyd_tpm::{PcrValue, Tpm};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::keyring::{Keyring, Resealed};

/// What is said of each key.
pub type Told = ReceiverStream<Result<v1::ResealedKey, Status>>;

/// One key after the other, until all are done or the caller has left.
pub fn reseal_all(
    keyring: Keyring,
    origin: Origin,
    tpm: Tpm,
    expected: Vec<PcrValue>,
    dry_run: bool,
) -> Told {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let (tpm, expected) = (Arc::new(tpm), Arc::from(expected));
    tokio::spawn(async move {
        let keys = keyring.sealed_by_tpm();
        let of = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        for (key, number) in keys.into_iter().zip(1..) {
            let id = key.record.id.clone();
            let result =
                keyring.reseal(origin, id.clone(), Arc::clone(&tpm), Arc::clone(&expected), dry_run).await;
            let (outcome, failure) = match result {
                Ok(Resealed::Done) => ("resealed", None),
                Ok(Resealed::Current) => ("current", None),
                Ok(Resealed::Due) => ("due", None),
                Err(failure) => ("failed", Some(failure)),
            };
            let told = v1::ResealedKey {
                key: id.to_string(),
                outcome: outcome.to_owned(),
                reason: failure.as_ref().map(|f| f.reason.name().to_owned()).unwrap_or_default(),
                message: failure.map(|f| f.message).unwrap_or_default(),
                number,
                of,
            };
            if sender.send(Ok(told)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

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
