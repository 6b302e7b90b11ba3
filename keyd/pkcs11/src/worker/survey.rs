//! What tokens a module shows.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cryptoki::context::Pkcs11;
use cryptoki::slot::{Slot, TokenInfo};

use super::dialect::Dialect;
use super::inventory;
use super::module::load;
use crate::error::Error;
use crate::wire::{Answer, ShownToken, ShownTokens, Survey, TokenState};

/// Most tokens that are shown.
const TOKENS_LIMIT: usize = 256;

/// Looks into every slot, without logging in.
pub(super) fn run(task: Survey) -> Answer {
    let module = Path::new(OsStr::from_bytes(&task.module));
    match survey(module, &Dialect::new(task.mechanisms.unwrap_or_default().into())) {
        Ok(tokens) => Answer::Tokens(ShownTokens { tokens }),
        Err(error) => Answer::Failed(error.into_failed(&format!("PKCS#11 module {}", module.display()))),
    }
}

fn survey(module: &Path, dialect: &Dialect) -> Result<Vec<ShownToken>, Error> {
    let context = load(module)?;
    // Some modules count the slot of a blank token as empty, so every slot is asked.
    let slots = context.get_all_slots().map_err(Error::token("listing the slots"))?;
    let tokens =
        slots.into_iter().filter_map(|slot| look(dialect, &context, slot)).take(TOKENS_LIMIT).collect();
    // Nothing was changed, so there is nothing to lose.
    let _ = context.finalize();
    Ok(tokens)
}

/// None where the slot is empty, or its token cannot be asked.
fn look(dialect: &Dialect, context: &Pkcs11, slot: Slot) -> Option<ShownToken> {
    let info = context.get_token_info(slot).ok()?;
    let described = inventory::describe_slot(dialect, context, slot).unwrap_or_default();
    Some(ShownToken {
        slot: slot.id(),
        label: info.label().trim_end().to_owned(),
        serial: info.serial_number().trim_end().to_owned(),
        product: format!("{}, firmware {}", described.product, info.firmware_version()),
        state: state(&info).into(),
        algorithms: described.algorithms,
        wraps: described.wraps,
    })
}

fn state(info: &TokenInfo) -> TokenState {
    if !info.token_initialized() {
        TokenState::Blank
    } else if !info.user_pin_initialized() {
        TokenState::WithoutPin
    } else if info.user_pin_locked() {
        TokenState::Locked
    } else if info.user_pin_final_try() {
        TokenState::FinalTry
    } else {
        TokenState::Ready
    }
}
