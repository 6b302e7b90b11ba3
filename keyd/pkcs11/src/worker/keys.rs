//! Key pairs in the token.

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use keyd_core::{Algorithm, Family, PublicKey};

use super::decapsulate::check_pair;
use super::module::Module;
use crate::error::{self, Error};
use crate::wire::Pss;
use crate::{ecdsa, rsa};

/// Makes a key pair and returns the raw public key. Whatever fails after that removes the pair.
pub(super) fn create(
    module: &Module,
    session: &Session,
    id: &[u8],
    label: &str,
    algorithm: Algorithm,
) -> Result<Vec<u8>, Error> {
    let common =
        [Attribute::Token(true), Attribute::Id(id.to_vec()), Attribute::Label(label.as_bytes().to_vec())];
    let (public_use, private_use) = match algorithm.decapsulates() {
        true => (Attribute::Encapsulate(true), Attribute::Decapsulate(true)),
        false => (Attribute::Verify(true), Attribute::Sign(true)),
    };
    let public = [vec![Attribute::Private(false), public_use], module.dialect.parameters(algorithm)].concat();
    let private = [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        private_use,
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    let mechanism = module.dialect.key_pair_gen(algorithm)?;
    let (public, private) = session
        .generate_key_pair(&mechanism, &[&common[..], &public].concat(), &[&common[..], &private].concat())
        .map_err(|source| match error::is(&source, error::NO_MECHANISM) {
            true => Error::Unsupported { algorithm },
            false => Error::Token { doing: "making a key", source },
        })?;
    let made = || {
        check_confined(session, private, "the private key that the token made")?;
        let raw = public_key(session, public, algorithm)?;
        if algorithm.decapsulates() {
            check_pair(module, session, private, algorithm, &raw)?;
        }
        Ok(raw)
    };
    made().map_err(|error| remove([private, public], session, id, error))
}

/// Signs what [`crate::wire::Sign`] carries.
pub(super) fn sign(
    module: &Module,
    session: &Session,
    id: &[u8],
    algorithm: Algorithm,
    data: &[u8],
    pss: Pss,
) -> Result<Vec<u8>, Error> {
    let key = module.private_key(id, || find_private(module, session, id, algorithm))?;
    session.sign(&module.dialect.signing(algorithm, pss)?, key, data).map_err(|source| {
        module.forget(id);
        Error::Token { doing: "signing", source }
    })
}

/// Destroys both halves of a key. That there are none is no error.
pub(super) fn delete(module: &Module, session: &Session, id: &[u8]) -> Result<(), Error> {
    module.forget(id);
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        let template = [Attribute::Token(true), Attribute::Class(class), Attribute::Id(id.to_vec())];
        for object in session.find_objects(&template).map_err(Error::token("searching a key"))? {
            session.destroy_object(object).map_err(Error::token("destroying a key"))?;
        }
    }
    Ok(())
}

/// Refuses a private or secret key that could leave the token.
pub(super) fn check_confined(session: &Session, key: ObjectHandle, what: &str) -> Result<(), Error> {
    let wanted = [AttributeType::Sensitive, AttributeType::Extractable];
    let found = session.get_attributes(key, &wanted).map_err(Error::token("reading a key's attributes"))?;
    let confined =
        found.contains(&Attribute::Sensitive(true)) && found.contains(&Attribute::Extractable(false));
    confined.then_some(()).ok_or_else(|| Error::Exposed { what: what.to_owned() })
}

/// The private key with this CKA_ID.
pub(super) fn find_private(
    module: &Module,
    session: &Session,
    id: &[u8],
    algorithm: Algorithm,
) -> Result<ObjectHandle, Error> {
    let template = [
        Attribute::Token(true),
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(module.dialect.key_type(algorithm)?),
        Attribute::Id(id.to_vec()),
    ];
    match session.find_objects(&template).map_err(Error::token("searching a key"))?.as_slice() {
        [] => Err(Error::KeyNotFound { id: hex::encode(id) }),
        [key] => Ok(*key),
        keys => Err(Error::Ambiguous {
            what: format!("private keys with CKA_ID {}", hex::encode(id)),
            count: keys.len(),
        }),
    }
}

/// The raw public key. CKA_VALUE of ML-DSA and ML-KEM is raw on most tokens, a SubjectPublicKeyInfo on some.
fn public_key(session: &Session, key: ObjectHandle, algorithm: Algorithm) -> Result<Vec<u8>, Error> {
    let wanted: &[AttributeType] = match algorithm.family() {
        Family::MlDsa | Family::MlKem => &[AttributeType::Value],
        Family::Ec => &[AttributeType::EcPoint],
        Family::Rsa => &[AttributeType::Modulus, AttributeType::PublicExponent],
    };
    let found = session.get_attributes(key, wanted).map_err(Error::token("reading a public key"))?;
    let raw = match found.as_slice() {
        [Attribute::Value(value)] if value.len() != algorithm.public_len() => PublicKey::from_spki(value)
            .ok()
            .filter(|key| key.algorithm() == algorithm)
            .map(|key| key.raw().to_vec()),
        [Attribute::Value(value)] => Some(value.clone()),
        [Attribute::EcPoint(value)] => Some(ecdsa::point(algorithm, value).to_vec()),
        [Attribute::Modulus(modulus), Attribute::PublicExponent(exponent)] => {
            rsa::public_key(modulus, exponent)
        }
        _ => None,
    };
    raw.filter(|raw| PublicKey::from_raw(algorithm, raw).is_ok())
        .ok_or(Error::Malformed { what: "the public key" })
}

/// Removes a pair of which something went wrong, and returns the error to report.
fn remove(pair: [ObjectHandle; 2], session: &Session, id: &[u8], error: Error) -> Error {
    pair.into_iter().fold(error, |error, object| match session.destroy_object(object) {
        Ok(()) => error,
        Err(cleanup) => Error::LeftBehind { id: hex::encode(id), cleanup, source: Box::new(error) },
    })
}
