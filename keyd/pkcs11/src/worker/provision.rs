//! Initialising a blank token.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cryptoki::context::Pkcs11;
use cryptoki::session::UserType;
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use super::module::{auth_pin, find_slot, load};
use crate::config::TokenName;
use crate::error::{self, Error};
use crate::said::Said;
use crate::wire::{Answer, Provision};

/// Initialises a blank token unless one of this label exists. The answer says which.
pub(super) fn run(task: &Provision) -> Answer {
    let module = Path::new(OsStr::from_bytes(&task.module));
    let token = TokenName::Label(task.label.clone());
    match provision(module, &token, task) {
        Ok(initialised) => Answer::Provisioned(initialised),
        Err(error) => Answer::Failed(error.into_failed(&format!("{token} ({})", module.display()))),
    }
}

fn provision(module: &Path, token: &TokenName, task: &Provision) -> Result<bool, Error> {
    let pin = |bytes| auth_pin(bytes).map_err(|e| Error::BadRequest { message: e.to_string() });
    let (so_pin, user_pin) = (pin(&task.so_pin)?, pin(&task.user_pin)?);
    let context = load(module)?;
    let done = initialise(&context, token, &task.label, &so_pin, &user_pin);
    // The token is as it should be, or the error is known; either way there is nothing left to lose.
    let _ = context.finalize();
    done
}

fn initialise(
    context: &Pkcs11,
    token: &TokenName,
    label: &str,
    so_pin: &AuthPin,
    user_pin: &AuthPin,
) -> Result<bool, Error> {
    let slot = match find_slot(context, token)? {
        Ok(slot) => slot,
        Err(present) => {
            let blank = blank_slot(context)?.ok_or(Error::NoBlankToken { present })?;
            context.init_token(blank, so_pin, label).map_err(refused("initialising the token"))?;
            // Some modules move the token to another slot with this.
            find_slot(context, token)?.map_err(|present| Error::NoSuchToken { present })?
        }
    };
    let info = context.get_token_info(slot).map_err(Error::token("asking for the token's state"))?;
    if info.user_pin_initialized() {
        return Ok(false);
    }
    set_user_pin(context, slot, so_pin, user_pin)?;
    Ok(true)
}

/// The first slot whose token was never initialised. Some modules count such a slot as empty.
fn blank_slot(context: &Pkcs11) -> Result<Option<Slot>, Error> {
    let slots = context.get_all_slots().map_err(Error::token("listing the slots"))?;
    Ok(slots
        .into_iter()
        .find(|slot| context.get_token_info(*slot).is_ok_and(|info| !info.token_initialized())))
}

fn set_user_pin(context: &Pkcs11, slot: Slot, so_pin: &AuthPin, user_pin: &AuthPin) -> Result<(), Error> {
    let session = context.open_rw_session(slot).map_err(Error::token("opening a session"))?;
    session.login(UserType::So, Some(so_pin)).map_err(refused("logging in as security officer"))?;
    session.init_pin(user_pin).map_err(refused("setting the user PIN"))?;
    session.logout().map_err(Error::token("logging out"))
}

fn refused(doing: &'static str) -> impl Fn(cryptoki::error::Error) -> Error {
    move |source| match error::is(&source, error::PIN) {
        true => Error::PinRefused { why: format!("{doing}: {}", Said(&source)) },
        false => Error::Token { doing, source },
    }
}
