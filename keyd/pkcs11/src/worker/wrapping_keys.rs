//! The token's AES-256 keys that wrap. As a rule there is one; two keyd that met an empty token at once make two, and then
//! both open what they wrapped, and one of them wraps from there on.

use std::collections::HashMap;

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::keys;
use super::module::Module;
use crate::error::{self, Error};
use crate::{WRAPPING_KEY, lock};

/// Length of a wrapping key's CKA_ID, in bytes.
pub(super) const ID_LEN: usize = 16;
const KEY_LEN: u64 = 32;

/// The CKA_ID of a wrapping key. It stands in what the key wrapped.
pub(super) type Id = [u8; ID_LEN];

/// The wrapping keys that were needed so far.
#[derive(Default)]
pub(super) struct WrappingKeys {
    /// The one that wraps.
    wraps: Option<Id>,
    handles: HashMap<Id, ObjectHandle>,
}

/// The key to wrap with; made on first use.
pub(super) fn wrapping(module: &Module, session: &Session) -> Result<(Id, ObjectHandle), Error> {
    let mut known = lock(&module.wrapping);
    if let Some((id, key)) = known.wraps.and_then(|id| known.handles.get_key_value(&id)) {
        return Ok((*id, *key));
    }
    let mut found = all(session)?;
    if found.is_empty() {
        make(session)?;
        // Searched again, because another keyd may have made one meanwhile.
        found = all(session)?;
    }
    // Whoever looks at the same keys takes the same one.
    let (id, key) = found.into_iter().min_by_key(|(id, _)| *id).ok_or(Error::NoWrappingKey)?;
    keys::check_confined(session, key, "the wrapping key")?;
    known.wraps = Some(id);
    known.handles.insert(id, key);
    Ok((id, key))
}

/// The key that wrapped what bears this id.
pub(super) fn with_id(module: &Module, session: &Session, id: &Id) -> Result<ObjectHandle, Error> {
    let mut known = lock(&module.wrapping);
    if let Some(key) = known.handles.get(id) {
        return Ok(*key);
    }
    let key = match find(session, &[Attribute::Id(id.to_vec())])?.as_slice() {
        [] => return Err(Error::NoWrappingKey),
        [key] => *key,
        keys => {
            let what = format!("secret keys labelled {WRAPPING_KEY:?} with CKA_ID {}", hex::encode(id));
            return Err(Error::Ambiguous { what, count: keys.len() });
        }
    };
    keys::check_confined(session, key, "the wrapping key")?;
    known.handles.insert(*id, key);
    Ok(key)
}

/// Forgets every handle: a key failed, or the login is another.
pub(super) fn forget(module: &Module) {
    *lock(&module.wrapping) = WrappingKeys::default();
}

/// Fills with random bytes.
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    keyd_core::crypto::fill(bytes).map_err(|failure| Error::Protocol { what: failure.message })
}

/// Every wrapping key with an id of ours.
fn all(session: &Session) -> Result<Vec<(Id, ObjectHandle)>, Error> {
    let mut found = Vec::new();
    for key in find(session, &[])? {
        let read = session
            .get_attributes(key, &[AttributeType::Id])
            .map_err(Error::token("reading the wrapping key's attributes"))?;
        if let [Attribute::Id(id)] = read.as_slice()
            && let Ok(id) = Id::try_from(id.as_slice())
        {
            found.push((id, key));
        }
    }
    Ok(found)
}

fn find(session: &Session, more: &[Attribute]) -> Result<Vec<ObjectHandle>, Error> {
    let template = [
        Attribute::Token(true),
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(WRAPPING_KEY.as_bytes().to_vec()),
    ];
    session.find_objects(&[&template, more].concat()).map_err(Error::token("searching the wrapping key"))
}

fn make(session: &Session) -> Result<(), Error> {
    let mut id = Id::default();
    fill(&mut id)?;
    let template = [
        Attribute::Token(true),
        Attribute::Id(id.to_vec()),
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
    session.generate_key(&Mechanism::AesKeyGen, &template).map(drop).map_err(|source| {
        match error::is(&source, error::NO_MECHANISM) {
            true => Error::CannotWrap,
            false => Error::Token { doing: "making the wrapping key", source },
        }
    })
}
