//! How the TPM is, for `keyd status`.

use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::structures::CapabilityData;

use crate::code::{Meaning, meaning};
use crate::connection::Connection;
use crate::ek::property;
use crate::error::{Doing, Error};

/// TPMA_PERMANENT.inLockout (TPM 2.0 Part 2 §8.6).
const IN_LOCKOUT: u32 = 1 << 9;

/// What the TPM can do, in a sentence.
pub(crate) fn describe(connection: &mut Connection, pinned: bool) -> Result<String, Error> {
    let manufacturer = property(&mut connection.context, PropertyTag::Manufacturer)?.to_be_bytes();
    let manufacturer = String::from_utf8_lossy(&manufacturer).trim_end_matches(['\0', ' ']).to_owned();
    let pin = if pinned {
        "Its storage root key is the pinned one."
    } else {
        "Its storage root key is not pinned, so another TPM in its place would not be noticed: enrol this node."
    };
    let lockout = if in_lockout(connection)? {
        " It is in dictionary-attack lockout; keyd's own keys are exempt from that, but somebody guesses at another \
         key's password. `tpm2_dictionarylockout --clear-lockout` ends it."
    } else {
        ""
    };
    Ok(format!("Seals and attests (made by {manufacturer}). {pin}{lockout}"))
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
