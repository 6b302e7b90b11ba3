//! Wrapping a seed under an AES-256 key that never leaves the token (AES-GCM, NIST SP 800-38D).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use cryptoki::context::Function;
use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::module::Module;
use super::wrapping_keys::{self, ID_LEN};
use crate::error::{self, Error};

/// First byte of a blob. The rest is the wrapping key's CKA_ID and the IV, then ciphertext and tag.
const VERSION: u8 = 1;
const IV_LEN: usize = 12;
const TAG_BITS: u64 = 128;

/// Wraps `secret`, with `context` authenticated. The key is made on first use.
pub(super) fn seal(
    module: &Module,
    session: &Session,
    secret: &[u8],
    context: &[u8],
) -> Result<Vec<u8>, Error> {
    let (id, key) = wrapping_keys::wrapping(module, session)?;
    let mut iv = [0; IV_LEN];
    wrapping_keys::fill(&mut iv)?;
    let sealed = {
        // A token in FIPS mode may put an IV of its own in place of ours.
        let parameters = gcm(&mut iv, context)?;
        session.encrypt(&Mechanism::AesGcm(parameters), key, secret).map_err(|source| {
            wrapping_keys::forget(module);
            // NSS leaves the tag out of the room that it asks for.
            match error::is(&source, error::NO_MECHANISM) || error::is(&source, &[RvError::BufferTooSmall]) {
                true => Error::CannotWrap,
                false => Error::Token { doing: "wrapping", source },
            }
        })?
    };
    let opened = open(module, session, key, iv, &sealed, context).map_err(|error| match error {
        Error::DidNotOpen { .. } => Error::WrapBroken,
        other => other,
    })?;
    verify_slices_are_equal(&opened, secret).map_err(|_| Error::WrapBroken)?;
    Ok([&[VERSION][..], &id, &iv, &sealed].concat())
}

/// Unwraps what [`seal`] gave with the same `context`.
pub(super) fn unseal(
    module: &Module,
    session: &Session,
    blob: &[u8],
    context: &[u8],
) -> Result<Vec<u8>, Error> {
    let (id, iv, sealed) = parts(blob).ok_or(Error::DidNotOpen { source: None })?;
    let key = wrapping_keys::with_id(module, session, id)?;
    Ok(std::mem::take(&mut *open(module, session, key, *iv, sealed, context)?))
}

/// The wrapping key's CKA_ID, the IV, and what is sealed.
pub(crate) fn parts(blob: &[u8]) -> Option<(&[u8; ID_LEN], &[u8; IV_LEN], &[u8])> {
    let ([VERSION], rest) = blob.split_first_chunk()? else { return None };
    let (id, rest) = rest.split_first_chunk()?;
    let (iv, sealed) = rest.split_first_chunk()?;
    Some((id, iv, sealed))
}

fn open(
    module: &Module,
    session: &Session,
    key: ObjectHandle,
    mut iv: [u8; IV_LEN],
    sealed: &[u8],
    context: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let parameters = gcm(&mut iv, context)?;
    session.decrypt(&Mechanism::AesGcm(parameters), key, sealed).map(Zeroizing::new).map_err(|source| {
        match source {
            Cryptoki::Pkcs11(code, Function::Decrypt) if TAMPERED.contains(&code) => {
                Error::DidNotOpen { source: Some(source) }
            }
            source => {
                wrapping_keys::forget(module);
                Error::Token { doing: "unwrapping", source }
            }
        }
    })
}

/// What tokens return for a tag that does not match. The last two also mean other things elsewhere, but from
/// C_Decrypt they are no loss of the device.
const TAMPERED: &[RvError] = &[
    RvError::EncryptedDataInvalid,
    RvError::EncryptedDataLenRange,
    RvError::DataInvalid,
    RvError::GeneralError,
    RvError::FunctionFailed,
];

fn gcm<'a>(iv: &'a mut [u8], context: &'a [u8]) -> Result<GcmParams<'a>, Error> {
    GcmParams::new(iv, context, TAG_BITS.into()).map_err(Error::token("preparing AES-GCM"))
}
