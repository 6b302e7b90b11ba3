//! The numbers by which a token knows the post-quantum algorithms.

use std::fmt;

use keyd_core::Family;

/// The first vendor-defined number of a mechanism, key type or attribute (CKM_, CKK_ and CKA_VENDOR_DEFINED, PKCS#11 §3).
pub const VENDOR_DEFINED: u32 = 0x8000_0000;

/// Vendor-defined numbers, for a token that is older than the standard ones (PKCS#11 3.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mechanisms {
    /// For ML-DSA; the standard numbers where there are none.
    pub ml_dsa: Option<VendorNumbers>,
    /// For ML-KEM; the standard numbers where there are none.
    pub ml_kem: Option<VendorNumbers>,
}

/// The numbers of one algorithm. Each is [`VENDOR_DEFINED`] or above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VendorNumbers {
    /// The mechanism that makes key pairs, without a parameter.
    pub key_pair_gen: u32,
    /// The mechanism that signs pure with an empty context, or that decapsulates; without a parameter.
    pub operation: u32,
    /// CKA_KEY_TYPE, where it is not the standard one.
    pub key_type: Option<u32>,
    /// The attribute that takes the parameter set, where it is not CKA_PARAMETER_SET. Its values are those of PKCS#11 3.2.
    pub parameter_set: Option<u32>,
}

impl Mechanisms {
    /// The numbers for a family of algorithms, where the token has its own.
    pub(crate) fn vendor(&self, family: Family) -> Option<VendorNumbers> {
        match family {
            Family::MlDsa => self.ml_dsa,
            Family::MlKem => self.ml_kem,
            Family::Ec | Family::Rsa => None,
        }
    }

    /// Names the first number that is not vendor-defined.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (name, numbers) in [("ml_dsa", self.ml_dsa), ("ml_kem", self.ml_kem)] {
            if let Some(wrong) = numbers.and_then(VendorNumbers::first_below_range) {
                return Err(format!("{name}: {wrong}"));
            }
        }
        Ok(())
    }
}

impl VendorNumbers {
    fn first_below_range(self) -> Option<Wrong> {
        [Some(self.key_pair_gen), Some(self.operation), self.key_type, self.parameter_set]
            .into_iter()
            .flatten()
            .find(|number| *number < VENDOR_DEFINED)
            .map(Wrong)
    }
}

/// A number below the vendors' range.
struct Wrong(u32);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} is no vendor-defined number; those begin at {VENDOR_DEFINED:#x}", self.0)
    }
}
