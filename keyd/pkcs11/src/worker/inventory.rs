//! What the token holds and what it can do.

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use keyd_core::{Algorithm, Family, KeyId};

use super::WRAPPING_KEY;
use super::module::Module;
use crate::ecdsa;
use crate::error::Error;
use crate::wire::{Class, Description, Object, Objects};

/// Most objects that one listing reads. Each takes at most some 300 bytes, so the answer fits a frame.
const OBJECTS_LIMIT: usize = 2048;

/// The key objects with a label of keyd's. Built-in and foreign objects are left out.
pub(super) fn list(session: &Session) -> Result<Objects, Error> {
    let mut objects = Vec::new();
    for (class, kind) in [
        (ObjectClass::PRIVATE_KEY, Class::Private),
        (ObjectClass::PUBLIC_KEY, Class::Public),
        (ObjectClass::SECRET_KEY, Class::Wrapping),
    ] {
        let template = [Attribute::Token(true), Attribute::Class(class)];
        for handle in session.find_objects(&template).map_err(Error::token("listing the objects"))? {
            objects.extend(read(session, handle, kind)?);
            if objects.len() > OBJECTS_LIMIT {
                let message = format!("the token holds more than {OBJECTS_LIMIT} objects of keyd's");
                return Err(Error::BadRequest { message });
            }
        }
    }
    Ok(Objects { objects })
}

/// The token's product name, the algorithms that it makes keys for, and whether it wraps.
pub(super) fn describe(module: &Module) -> Result<Description, Error> {
    let context = module.context()?;
    let slot = module.slot(&context)?;
    describe_slot(&context, slot)
}

/// The same of the token in any slot.
pub(super) fn describe_slot(context: &Pkcs11, slot: Slot) -> Result<Description, Error> {
    let info = context.get_token_info(slot).map_err(Error::token("asking for the token's state"))?;
    let mechanisms = context.get_mechanism_list(slot).map_err(Error::token("listing the mechanisms"))?;
    let has = |all: &[MechanismType]| all.iter().all(|mechanism| mechanisms.contains(mechanism));
    let mut algorithms = Vec::new();
    for algorithm in Algorithm::ALL {
        let makes = match algorithm.family() {
            Family::MlDsa => has(&[MechanismType::ML_DSA_KEY_PAIR_GEN, MechanismType::ML_DSA]),
            Family::Ec => {
                has(&[MechanismType::ECC_KEY_PAIR_GEN, MechanismType::ECDSA])
                    && has_curve(context, slot, algorithm)?
            }
            Family::Rsa | Family::MlKem => false,
        };
        if makes {
            algorithms.push(algorithm.name().to_owned());
        }
    }
    Ok(Description {
        product: format!("{} {}", info.manufacturer_id().trim(), info.model().trim()),
        algorithms,
        wraps: has(&[MechanismType::AES_KEY_GEN, MechanismType::AES_GCM]),
    })
}

fn read(session: &Session, handle: ObjectHandle, class: Class) -> Result<Option<Object>, Error> {
    let wanted =
        [AttributeType::Id, AttributeType::Label, AttributeType::Sensitive, AttributeType::Extractable];
    let mut object = Object { class: class.into(), ..Object::default() };
    for attribute in
        session.get_attributes(handle, &wanted).map_err(Error::token("reading an object's attributes"))?
    {
        match attribute {
            Attribute::Id(id) => object.id = id,
            Attribute::Label(label) => object.label = String::from_utf8(label).unwrap_or_default(),
            Attribute::Sensitive(sensitive) => object.sensitive = sensitive,
            Attribute::Extractable(extractable) => object.extractable = extractable,
            _ => {}
        }
    }
    let ours = match class {
        Class::Wrapping => object.label == WRAPPING_KEY,
        _ => object.label.parse::<KeyId>().is_ok(),
    };
    Ok(ours.then_some(object))
}

fn has_curve(context: &Pkcs11, slot: Slot, algorithm: Algorithm) -> Result<bool, Error> {
    let bits = ecdsa::field_len(algorithm) * 8;
    let info = context
        .get_mechanism_info(slot, MechanismType::ECC_KEY_PAIR_GEN)
        .map_err(Error::token("asking for a mechanism"))?;
    Ok((info.min_key_size()..=info.max_key_size()).contains(&bits))
}
