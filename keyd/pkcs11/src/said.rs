//! What a module said, as its vendor's handbook and the PKCS#11 standard name it.

use std::fmt;

use cryptoki::error::{Error as Cryptoki, RvError};

/// Shows a failed call as `C_Sign gave CKR_DEVICE_ERROR`.
pub(crate) struct Said<'a>(pub &'a Cryptoki);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cryptoki::Pkcs11(RvError::VendorDefined(code), function) => {
                write!(f, "C_{function:?} gave the vendor's own {code:#010x}")
            }
            Cryptoki::Pkcs11(code, function) => {
                write!(f, "C_{function:?} gave CKR{}", screaming(&format!("{code:?}")))
            }
            other => other.fmt(f),
        }
    }
}

/// `DeviceError` as `_DEVICE_ERROR`.
fn screaming(camel: &str) -> String {
    let mut name = String::with_capacity(camel.len() + 8);
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn codes_have_the_names_of_the_standard() {
        for (code, function, said) in [
            (RvError::DeviceError, Function::Sign, "C_Sign gave CKR_DEVICE_ERROR"),
            (RvError::PinIncorrect, Function::Login, "C_Login gave CKR_PIN_INCORRECT"),
            (
                RvError::VendorDefined(0x8000_0011),
                Function::GenerateKeyPair,
                "C_GenerateKeyPair gave the vendor's own 0x80000011",
            ),
        ] {
            assert_eq!(Said(&Cryptoki::Pkcs11(code, function)).to_string(), said);
        }
        assert_eq!(Said(&Cryptoki::PinNotSet).to_string(), Cryptoki::PinNotSet.to_string());
    }
}
