//! What the token holds and what it can do.

use std::time::Duration;

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use keyd_core::{Algorithm, Family, KeyId};
use tokio::time::Instant;

use super::dialect::Dialect;
use super::module::Module;
use crate::WRAPPING_KEY;
use crate::ecdsa;
use crate::error::{self, Error};
use crate::wire::{Class, Description, List, Mark, Object, Objects};

/// Most objects of a page. Each takes at most some 300 bytes, so the page fits a frame.
const PAGE_LIMIT: usize = 1024;
/// How long a page may take before it ends with the object at hand: some tokens read one in 20 ms, and a call has its deadline.
const PAGE_TIME: Duration = Duration::from_millis(500);

/// A page of the key objects of a class with a label of keyd's. Built-in and foreign objects are left out.
pub(super) fn list(session: &Session, list: &List) -> Result<Objects, Error> {
    let class = match list.class() {
        Class::Private => ObjectClass::PRIVATE_KEY,
        Class::Public => ObjectClass::PUBLIC_KEY,
        Class::Wrapping => ObjectClass::SECRET_KEY,
        Class::Unspecified => return Err(Error::Protocol { what: "a listing of no class".to_owned() }),
    };
    let worker = std::process::id();
    let after = list.after.filter(|mark| mark.worker == worker).map(|mark| mark.handle);
    let template = [Attribute::Token(true), Attribute::Class(class)];
    let mut handles = session.find_objects(&template).map_err(Error::token("listing the objects"))?;
    // By handle, what is made or destroyed between two pages moves nothing from one to the other.
    handles.sort_unstable_by_key(ObjectHandle::handle);
    let mut rest = handles.into_iter().skip_while(|handle| Some(handle.handle()) <= after);
    let (mut objects, mut last, start) = (Vec::new(), None, Instant::now());
    for handle in rest.by_ref().take(PAGE_LIMIT) {
        objects.extend(read(session, handle, list.class())?);
        last = Some(Mark { worker, handle: handle.handle() });
        if start.elapsed() >= PAGE_TIME {
            break;
        }
    }
    let next = last.filter(|_| rest.next().is_some());
    Ok(Objects { objects, next, anew: list.after.is_some() && after.is_none() })
}

/// The token's product name, the algorithms that it makes keys for, and whether it wraps.
pub(super) fn describe(module: &Module) -> Result<Description, Error> {
    let context = module.context()?;
    let slot = module.slot(&context)?;
    describe_slot(&module.dialect, &context, slot)
}

/// The same of the token in any slot.
pub(super) fn describe_slot(dialect: &Dialect, context: &Pkcs11, slot: Slot) -> Result<Description, Error> {
    let token = context.get_token_info(slot).map_err(Error::token("asking for the token's state"))?;
    let listed = context.get_mechanism_list(slot).map_err(Error::token("listing the mechanisms"))?;
    let mut algorithms = Vec::new();
    for algorithm in Algorithm::ALL {
        if makes(dialect, context, slot, &listed, algorithm)? {
            algorithms.push(algorithm.name().to_owned());
        }
    }
    let wrapping = [MechanismType::AES_KEY_GEN, MechanismType::AES_GCM];
    Ok(Description {
        product: format!("{} {}", token.manufacturer_id().trim(), token.model().trim()),
        algorithms,
        wraps: wrapping.iter().all(|mechanism| listed.contains(mechanism)),
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

/// Whether the token has all that keys of this algorithm need, and makes them of this size.
fn makes(
    dialect: &Dialect,
    context: &Pkcs11,
    slot: Slot,
    listed: &[MechanismType],
    algorithm: Algorithm,
) -> Result<bool, Error> {
    let info = |mechanism| match context.get_mechanism_info(slot, mechanism) {
        Ok(info) => Ok(Some(info)),
        Err(source) if error::is(&source, error::NO_MECHANISM) => Ok(None),
        Err(source) => Err(Error::Token { doing: "asking for a mechanism", source }),
    };
    let needed = dialect.needed(algorithm)?;
    for mechanism in &needed {
        // A vendor's own are asked for, because cryptoki's list leaves out what it has no name for.
        let there = match dialect.is_vendors(algorithm) {
            true => info(*mechanism)?.is_some(),
            false => listed.contains(mechanism),
        };
        if !there {
            return Ok(false);
        }
    }
    // What a token says of sizes has a meaning for elliptic curves and RSA alone.
    let bits = match algorithm.family() {
        Family::Ec => ecdsa::field_len(algorithm) * 8,
        Family::Rsa => algorithm.modulus_bits().unwrap_or_default(),
        Family::MlDsa | Family::MlKem => return Ok(true),
    };
    let Some(generation) = needed.first() else { return Ok(false) };
    let sizes = info(*generation)?;
    Ok(sizes.is_some_and(|sizes| (sizes.min_key_size()..=sizes.max_key_size()).contains(&bits)))
}
