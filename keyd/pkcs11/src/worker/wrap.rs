//! Wrapping a seed under an AES-256 key that never leaves the token (AES-GCM, NIST SP 800-38D).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use cryptoki::context::Function;
use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::module::Module;
use super::{WRAPPING_KEY, keys};
use crate::error::{self, Error};
use crate::lock;

/// First byte of a blob. The rest is the IV, then ciphertext and tag.
const VERSION: u8 = 1;
const IV_LEN: usize = 12;
const TAG_BITS: u64 = 128;
const KEY_LEN: u64 = 32;
/// Length of the wrapping key's CKA_ID, in bytes.
const ID_LEN: usize = 16;

/// Wraps `secret`, with `context` authenticated. The key is made on first use.
pub(super) fn seal(
    module: &Module,
    session: &Session,
    secret: &[u8],
    context: &[u8],
) -> Result<Vec<u8>, Error> {
    let key = wrapping_key(module, session, make)?;
    let mut iv = [0; IV_LEN];
    fill(&mut iv)?;
    let sealed = {
        // A token in FIPS mode may put an IV of its own in place of ours.
        let parameters = gcm(&mut iv, context)?;
        session.encrypt(&Mechanism::AesGcm(parameters), key, secret).map_err(|source| {
            *lock(&module.wrapping) = None;
            // NSS leaves the tag out of the room that it asks for.
            match error::is(&source, error::NO_MECHANISM) || error::is(&source, &[RvError::BufferTooSmall]) {
                true => Error::CannotWrap,
                false => Error::Token { doing: "wrapping", source },
            }
        })?
    };
    let opened = open(module, session, key, iv, &sealed, context)?;
    verify_slices_are_equal(&opened, secret).map_err(|_| Error::WrapBroken)?;
    Ok([&[VERSION][..], &iv, &sealed].concat())
}

/// Unwraps what [`seal`] gave with the same `context`.
pub(super) fn unseal(
    module: &Module,
    session: &Session,
    blob: &[u8],
    context: &[u8],
) -> Result<Vec<u8>, Error> {
    let Some(([VERSION], rest)) = blob.split_first_chunk() else {
        return Err(Error::DidNotOpen { source: None });
    };
    let Some((iv, sealed)) = rest.split_first_chunk::<IV_LEN>() else {
        return Err(Error::DidNotOpen { source: None });
    };
    let key = wrapping_key(module, session, |_| Err(Error::NoWrappingKey))?;
    Ok(std::mem::take(&mut *open(module, session, key, *iv, sealed, context)?))
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
                *lock(&module.wrapping) = None;
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

/// The wrapping key, or what `missing` makes of its absence. One that could leave the token is refused.
fn wrapping_key(
    module: &Module,
    session: &Session,
    missing: fn(&Session) -> Result<ObjectHandle, Error>,
) -> Result<ObjectHandle, Error> {
    let mut known = lock(&module.wrapping);
    if let Some(key) = *known {
        return Ok(key);
    }
    let template = [
        Attribute::Token(true),
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(WRAPPING_KEY.as_bytes().to_vec()),
    ];
    let found = session.find_objects(&template).map_err(Error::token("searching the wrapping key"))?;
    let key = match found.as_slice() {
        [] => missing(session)?,
        [key] => *key,
        keys => {
            let what = format!("secret keys labelled {WRAPPING_KEY:?}");
            return Err(Error::Ambiguous { what, count: keys.len() });
        }
    };
    keys::check_confined(session, key, "the wrapping key")?;
    *known = Some(key);
    Ok(key)
}

fn make(session: &Session) -> Result<ObjectHandle, Error> {
    let mut id = vec![0; ID_LEN];
    fill(&mut id)?;
    let template = [
        Attribute::Token(true),
        Attribute::Id(id),
        Attribute::Label(WRAPPING_KEY.as_bytes().to_vec()),
        Attribute::ValueLen(KEY_LEN.into()),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template).map_err(|source| {
        match error::is(&source, error::NO_MECHANISM) {
            true => Error::CannotWrap,
            false => Error::Token { doing: "making the wrapping key", source },
        }
    })
}

fn gcm<'a>(iv: &'a mut [u8], context: &'a [u8]) -> Result<GcmParams<'a>, Error> {
    GcmParams::new(iv, context, TAG_BITS.into()).map_err(Error::token("preparing AES-GCM"))
}

fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    aws_lc_rs::rand::fill(bytes)
        .map_err(|_| Error::Protocol { what: "the system gives no random bytes".to_owned() })
}
