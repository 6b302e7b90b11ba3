//! Response codes of the TPM (TPM 2.0 Part 2 §6.6) and of the TSS (TSS 2.0 Overview §3.2), sorted by what is to be
//! done about them.

use bitfield::BitRange;
use tss_esapi::constants::Tss2ResponseCode;

/// Which part of the stack reports: bits 16 to 23.
const LAYER_SHIFT: u32 = 16;
const LAYER_TPM: u32 = 0;
const LAYER_ESYS: u32 = 7;
const LAYER_TCTI: u32 = 10;
const LAYER_RESOURCE_MANAGER_TPM: u32 = 12;

/// TSS2_BASE_RC_RSP_AUTH_FAILED: the HMAC of an answer is wrong.
const RESPONSE_AUTH_FAILED: u32 = 27;

/// TPM_RC_LOCKOUT.
const LOCKOUT: u32 = 0x921;
/// TPM_RC_INITIALIZE: no TPM2_Startup since the reset.
const INITIALIZE: u32 = 0x100;
/// TPM_RC_CONTEXT_GAP to TPM_RC_OBJECT_HANDLES: no room for one more object or session.
const NO_ROOM: std::ops::RangeInclusive<u32> = 0x901..=0x906;
/// TPM_RC_REFERENCE_H0 to TPM_RC_REFERENCE_S6: what the command names is not loaded.
const NOT_LOADED: std::ops::RangeInclusive<u32> = 0x910..=0x91e;

/// RC_FMT1: the code carries which handle, parameter or session is meant.
const FORMAT_ONE: u32 = 1 << 7;
/// In format one: it is a parameter.
const PARAMETER: u32 = 1 << 6;
/// In format one: what remains without the number of the handle, parameter or session.
const FORMAT_ONE_MASK: u32 = 0xbf;
/// TPM_RC_HANDLE.
const HANDLE: u32 = 0x8b;
/// TPM_RC_AUTH_FAIL: wrong, and counted towards lockout.
const AUTH_FAIL: u32 = 0x8e;
/// TPM_RC_POLICY_FAIL: the session has not fulfilled the object's policy.
const POLICY_FAIL: u32 = 0x9d;
/// TPM_RC_PCR_CHANGED: since the session's PolicyPCR.
const PCR_CHANGED: u32 = 0x128;
/// TPM_RC_BAD_AUTH: wrong, and not counted.
const BAD_AUTH: u32 = 0xa2;

/// What a failed command means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The TPM cannot be reached over this connection.
    Unreachable,
    /// The TPM was reset, or is full of what others left behind.
    Unsettled,
    /// The answer was altered on its way.
    Forged,
    /// Dictionary-attack lockout, or a step towards it.
    Lockout,
    /// A password is set where none was expected.
    BadAuth,
    /// The policy of an object is not fulfilled, or a PCR changed meanwhile.
    PolicyRefused,
    /// There is nothing at the handle.
    NothingThere,
    /// The TPM refused a parameter.
    BadParameter,
    /// Anything else.
    Other,
}

/// The code as the library gave it; none where the binding itself refused.
pub(crate) fn number(error: &tss_esapi::Error) -> Option<u32> {
    match error {
        tss_esapi::Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) => Some(code.bit_range(31, 0)),
        tss_esapi::Error::Tss2Error(Tss2ResponseCode::FormatOne(code)) => Some(code.bit_range(31, 0)),
        _ => None,
    }
}

/// Whether the TPM itself said so, and not the software before it.
pub(crate) fn is_answer(error: &tss_esapi::Error) -> bool {
    let layer = number(error).map(|number| (number >> LAYER_SHIFT) & 0xff);
    matches!(layer, Some(LAYER_TPM | LAYER_RESOURCE_MANAGER_TPM))
}

pub(crate) fn meaning(error: &tss_esapi::Error) -> Meaning {
    number(error).map_or(Meaning::Other, meaning_of)
}

fn meaning_of(number: u32) -> Meaning {
    let (layer, code) = ((number >> LAYER_SHIFT) & 0xff, number & 0xffff);
    match layer {
        LAYER_TCTI => Meaning::Unreachable,
        LAYER_ESYS if code == RESPONSE_AUTH_FAILED => Meaning::Forged,
        LAYER_TPM | LAYER_RESOURCE_MANAGER_TPM if code & FORMAT_ONE != 0 => match code & FORMAT_ONE_MASK {
            HANDLE => Meaning::NothingThere,
            AUTH_FAIL => Meaning::Lockout,
            BAD_AUTH => Meaning::BadAuth,
            POLICY_FAIL => Meaning::PolicyRefused,
            _ if code & PARAMETER != 0 => Meaning::BadParameter,
            _ => Meaning::Other,
        },
        LAYER_TPM | LAYER_RESOURCE_MANAGER_TPM => match code {
            LOCKOUT => Meaning::Lockout,
            INITIALIZE => Meaning::Unsettled,
            PCR_CHANGED => Meaning::PolicyRefused,
            _ if NO_ROOM.contains(&code) || NOT_LOADED.contains(&code) => Meaning::Unsettled,
            _ => Meaning::Other,
        },
        _ => Meaning::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_seen_on_tpms_are_sorted() {
        for (number, meaning) in [
            (0x921, Meaning::Lockout),
            (0x98e, Meaning::Lockout),
            (0x000c_0921, Meaning::Lockout),
            (0x9a2, Meaning::BadAuth),
            (0x18b, Meaning::NothingThere),
            (0x1df, Meaning::BadParameter),
            (0x2d5, Meaning::BadParameter),
            (0x99d, Meaning::PolicyRefused),
            (0x128, Meaning::PolicyRefused),
            (0x902, Meaning::Unsettled),
            (0x910, Meaning::Unsettled),
            (0x100, Meaning::Unsettled),
            (0x000a_000a, Meaning::Unreachable),
            (0x0007_001b, Meaning::Forged),
            (0x0007_000a, Meaning::Other),
            (0x0000_0101, Meaning::Other),
        ] {
            assert_eq!(meaning_of(number), meaning, "{number:#x}");
        }
    }
}
