//! Signature keys in the token.

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::dsa::{HedgeType, SignAdditionalContext};
use cryptoki::object::{Attribute, AttributeType, KeyType, MlDsaParameterSetType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use keyd_core::{Algorithm, PublicKey};

use super::module::Module;
use crate::ecdsa;
use crate::error::{self, Error};

/// DER of the object identifiers of the named curves (RFC 5480 §2.1.1.1).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// Makes a key pair and returns the raw public key. Whatever fails after that removes the pair.
pub(super) fn create(
    session: &Session,
    id: &[u8],
    label: &str,
    algorithm: Algorithm,
) -> Result<Vec<u8>, Error> {
    let (mechanism, parameters) = match algorithm {
        Algorithm::MlDsa44 => ml_dsa(MlDsaParameterSetType::ML_DSA_44),
        Algorithm::MlDsa65 => ml_dsa(MlDsaParameterSetType::ML_DSA_65),
        Algorithm::MlDsa87 => ml_dsa(MlDsaParameterSetType::ML_DSA_87),
        Algorithm::EcP256 => (Mechanism::EccKeyPairGen, Attribute::EcParams(P256.to_vec())),
        Algorithm::EcP384 => (Mechanism::EccKeyPairGen, Attribute::EcParams(P384.to_vec())),
        _ => return Err(Error::Unsupported { algorithm }),
    };
    let common =
        [Attribute::Token(true), Attribute::Id(id.to_vec()), Attribute::Label(label.as_bytes().to_vec())];
    let public = [Attribute::Private(false), Attribute::Verify(true), parameters];
    let private = [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    let (public, private) = session
        .generate_key_pair(&mechanism, &[&common[..], &public].concat(), &[&common[..], &private].concat())
        .map_err(|source| match error::is(&source, error::NO_MECHANISM) {
            true => Error::Unsupported { algorithm },
            false => Error::Token { doing: "making a key", source },
        })?;
    let made = check_confined(session, private, "the private key that the token made")
        .and_then(|()| public_key(session, public, algorithm));
    made.map_err(|error| remove([private, public], session, id, error))
}

/// Signs a message with ML-DSA, or a digest with an elliptic curve (`r || s`).
pub(super) fn sign(
    module: &Module,
    session: &Session,
    id: &[u8],
    algorithm: Algorithm,
    data: &[u8],
) -> Result<Vec<u8>, Error> {
    let key = module.private_key(id, || find_private(session, id, algorithm))?;
    let mechanism = match algorithm.is_ml_dsa() {
        // Pure, with an empty context (FIPS 204 §5.2), hedged where the token can.
        true => Mechanism::MlDsa(SignAdditionalContext::new(HedgeType::Preferred, None)),
        false => Mechanism::Ecdsa,
    };
    session.sign(&mechanism, key, data).map_err(|source| {
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

fn ml_dsa(set: MlDsaParameterSetType) -> (Mechanism<'static>, Attribute) {
    (Mechanism::MlDsaKeyPairGen, Attribute::ParameterSet(set.into()))
}

fn find_private(session: &Session, id: &[u8], algorithm: Algorithm) -> Result<ObjectHandle, Error> {
    let template = [
        Attribute::Token(true),
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(if algorithm.is_ml_dsa() { KeyType::ML_DSA } else { KeyType::EC }),
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

/// The raw public key. CKA_VALUE of ML-DSA is raw on most tokens, a SubjectPublicKeyInfo on some.
fn public_key(session: &Session, key: ObjectHandle, algorithm: Algorithm) -> Result<Vec<u8>, Error> {
    let wanted = if algorithm.is_ml_dsa() { AttributeType::Value } else { AttributeType::EcPoint };
    let found = session.get_attributes(key, &[wanted]).map_err(Error::token("reading a public key"))?;
    let raw = match found.as_slice() {
        [Attribute::Value(value)] if value.len() != algorithm.public_len() => PublicKey::from_spki(value)
            .ok()
            .filter(|key| key.algorithm() == algorithm)
            .map(|key| key.raw().to_vec()),
        [Attribute::Value(value)] => Some(value.clone()),
        [Attribute::EcPoint(value)] => Some(ecdsa::point(algorithm, value).to_vec()),
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
