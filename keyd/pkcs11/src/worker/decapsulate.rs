//! Decapsulation in the token (ML-KEM, FIPS 203; PKCS#11 3.2 §5.18.9).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use keyd_core::{Algorithm, PublicKey, SHARED_SECRET_LEN};
use zeroize::Zeroizing;

use super::keys;
use super::module::Module;
use crate::error::Error;

/// Recovers the shared secret.
pub(super) fn decapsulate(
    module: &Module,
    session: &Session,
    id: &[u8],
    algorithm: Algorithm,
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let key = module.private_key(id, || keys::find_private(module, session, id, algorithm))?;
    open(module, session, key, ciphertext).inspect_err(|_| module.forget(id))
}

/// Holds a key just made against what was encapsulated for its public half in software: nothing that it decapsulates
/// later can be told right from wrong.
pub(super) fn check_pair(
    module: &Module,
    session: &Session,
    private: ObjectHandle,
    algorithm: Algorithm,
    public: &[u8],
) -> Result<(), Error> {
    let unusable = |_| Error::Malformed { what: "the public key" };
    let public = PublicKey::from_raw(algorithm, public).map_err(unusable)?;
    let (ciphertext, expected) = public.encapsulate().map_err(unusable)?;
    let found = open(module, session, private, &ciphertext)?;
    verify_slices_are_equal(&found, expected.expose()).map_err(|_| Error::PairBroken)
}

fn open(
    module: &Module,
    session: &Session,
    private: ObjectHandle,
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let template = [
        Attribute::Token(false),
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ];
    let secret = session
        .decapsulate_key(&module.dialect.decapsulation()?, private, &template, ciphertext)
        .map_err(Error::token("decapsulating"))?;
    let found = session.get_attributes(secret, &[AttributeType::Value]);
    session.destroy_object(secret).map_err(Error::token("destroying a shared secret"))?;
    let value = match found.map_err(Error::token("reading a shared secret"))?.pop() {
        Some(Attribute::Value(value)) => Zeroizing::new(value),
        _ => return Err(Error::Malformed { what: "the shared secret" }),
    };
    (value.len() == SHARED_SECRET_LEN).then_some(value).ok_or(Error::Malformed { what: "the shared secret" })
}
