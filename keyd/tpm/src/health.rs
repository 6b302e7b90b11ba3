//! How the TPM is, for `keyd status`.

use keyd_core::HealthState;
use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::structures::CapabilityData;

use crate::code::{Meaning, meaning};
use crate::connection::Connection;
use crate::ek::property;
use crate::error::{Doing, Error};

/// TPMA_PERMANENT.inLockout (TPM 2.0 Part 2 §8.6).
const IN_LOCKOUT: u32 = 1 << 9;

/// How the TPM is, in a sentence, and whether dictionary-attack lockout keeps keyd from using it.
pub(crate) fn describe(connection: &mut Connection, pinned: bool) -> Result<(HealthState, String), Error> {
    let manufacturer = property(&mut connection.context, PropertyTag::Manufacturer)?.to_be_bytes();
    let manufacturer = String::from_utf8_lossy(&manufacturer).trim_end_matches(['\0', ' ']).to_owned();
    let pin = if pinned {
        "Its storage root key is the pinned one."
    } else {
        "Its storage root key is not pinned, so another TPM in its place would not be noticed: enrol this node."
    };
    let exempt = connection.srk.is_exempt_from_lockout(&mut connection.context)?;
    let locked_out = in_lockout(connection)?;
    let lockout = match (locked_out, exempt) {
        (false, true) => "",
        (false, false) => {
            " Its storage root key was not made by keyd and is subject to dictionary-attack lockout: whoever guesses at \
             another key's password can lock keyd out."
        }
        (true, true) => {
            " It is in dictionary-attack lockout; keyd's own keys are exempt from that, but somebody guesses at another \
             key's password. `tpm2_dictionarylockout --clear-lockout` ends it."
        }
        (true, false) => {
            " It is in dictionary-attack lockout, and so is its storage root key, which was not made by keyd: no sealed key \
             can be opened until that ends. `tpm2_dictionarylockout --clear-lockout` ends it; find out who guesses at its \
             passwords."
        }
    };
    let state = if locked_out && !exempt { HealthState::LockedOut } else { HealthState::Ok };
    Ok((state, format!("Seals and attests (made by {manufacturer}). {pin}{lockout}")))
}

/// An error of lockout with what ends it; any other as it is.
pub(crate) fn explain_lockout(connection: &mut Connection, error: Error) -> Error {
    match error {
        Error::Command { source, .. } if meaning(&source) == Meaning::Lockout => {
            match variable(connection, PropertyTag::LockoutInterval) {
                Ok(interval) => Error::Lockout { source, interval },
                Err(other) => other,
            }
        }
        other => other,
    }
}

fn in_lockout(connection: &mut Connection) -> Result<bool, Error> {
    variable(connection, PropertyTag::Permanent).map(|permanent| permanent & IN_LOCKOUT != 0)
}

/// A property that changes. Asked anew each time; the library would keep the first answer.
fn variable(connection: &mut Connection, tag: PropertyTag) -> Result<u32, Error> {
    let answer = connection
        .context
        .execute_without_session(|c| c.get_capability(CapabilityType::TpmProperties, tag.into(), 1))
        .doing("read its state")?;
    let (CapabilityData::TpmProperties(properties), _) = answer else {
        return Err(Error::BadAnswer("another list than that of its properties"));
    };
    let found = properties.into_iter().find(|p| p.property() == tag);
    found.map(|p| p.value()).ok_or(Error::BadAnswer("a list without what was asked for"))
}
