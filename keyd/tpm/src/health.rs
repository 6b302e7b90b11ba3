//! How the TPM is, for `keyd status`.

use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::structures::CapabilityData;

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

/// Asked anew each time; the library would keep the first answer.
fn in_lockout(connection: &mut Connection) -> Result<bool, Error> {
    let tag = PropertyTag::Permanent;
    let answer = connection
        .context
        .execute_without_session(|c| c.get_capability(CapabilityType::TpmProperties, tag.into(), 1))
        .doing("read its state")?;
    let (CapabilityData::TpmProperties(properties), _) = answer else {
        return Err(Error::BadAnswer("another list than that of its properties"));
    };
    let permanent = properties.into_iter().find(|p| p.property() == tag);
    permanent.map(|p| p.value() & IN_LOCKOUT != 0).ok_or(Error::BadAnswer("no TPM_PT_PERMANENT"))
}
