//! How a private key is protected.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Reason, quoted};
use crate::suggest::nearest;

/// How a private key is protected, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Protection {
    /// Made in a PKCS#11 token and never leaves it.
    Hsm,
    /// A software key whose secret only the token's non-extractable AES key can unwrap.
    HsmWrapped,
    /// A software key whose secret only this TPM releases.
    TpmSealed,
    /// On disk in clear; for development alone.
    Software,
}

impl Protection {
    /// Every protection, strongest first.
    pub const ALL: [Self; 4] = [Self::Hsm, Self::HsmWrapped, Self::TpmSealed, Self::Software];

    /// The name that configurations, commands and the API use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hsm => "hsm",
            Self::HsmWrapped => "hsm-wrapped",
            Self::TpmSealed => "tpm-sealed",
            Self::Software => "software",
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protection {
    type Err = Failure;

    /// # Errors
    /// [`Reason::UnknownProtection`], with the nearest name and the whole list.
    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::ALL.into_iter().find(|p| p.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            let hint = nearest(text, names).map(|n| format!(" Did you mean {n}?")).unwrap_or_default();
            Failure::new(
                Reason::UnknownProtection,
                format!("unknown protection {}.{hint} Known are {}.", quoted(text), names.join(", ")),
            )
        })
    }
}

impl TryFrom<String> for Protection {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl From<Protection> for String {
    fn from(protection: Protection) -> Self {
        protection.name().to_owned()
    }
}
