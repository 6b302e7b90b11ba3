//! `[token]`

use std::collections::BTreeMap;
use std::path::PathBuf;

use keyd_pkcs11::{Mechanisms, SESSIONS_LIMIT, VENDOR_DEFINED, VendorNumbers};
use serde::Deserialize;

use super::deadline::Deadline;

/// `[token]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenTable {
    /// The vendor's PKCS#11 module.
    pub module: PathBuf,
    /// The token's label; or give `serial`.
    pub label: Option<String>,
    /// The token's serial number; or give `label`.
    pub serial: Option<String>,
    /// File of mode 0600 that holds the user PIN.
    pub pin_file: Option<PathBuf>,
    /// Name of the systemd credential that holds the user PIN; or give `pin_file`.
    pub pin_credential: Option<String>,
    /// File with the user PIN as `keyd token seal-pin` sealed it; or give one of the other two.
    pub pin_sealed: Option<PathBuf>,
    /// Environment that the module wants, such as `SOFTHSM2_CONF`. Only the worker process gets it.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Sessions, and so signatures at once.
    #[serde(default = "default_sessions")]
    pub sessions: Sessions,
    /// How long one call may take, in ms.
    #[serde(default = "default_token_deadline")]
    pub call_deadline_ms: Deadline,
    /// Numbers of the vendor's, for a token that is older than PKCS#11 3.2.
    #[serde(default)]
    pub mechanisms: MechanismsTable,
}

/// How many sessions work at once, 1 to [`SESSIONS_LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub struct Sessions(usize);

/// `[token.mechanisms]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MechanismsTable {
    ml_dsa: Option<MlDsaNumbers>,
    ml_kem: Option<MlKemNumbers>,
}

/// `[token.mechanisms.ml_dsa]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct MlDsaNumbers {
    /// The mechanism that makes key pairs.
    key_pair_gen: Number,
    /// The mechanism that signs.
    sign: Number,
    /// The key type; the standard's without it.
    key_type: Option<Number>,
    /// The attribute that takes the parameter set; the standard's without it.
    parameter_set: Option<Number>,
}

/// `[token.mechanisms.ml_kem]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct MlKemNumbers {
    /// The mechanism that makes key pairs.
    key_pair_gen: Number,
    /// The mechanism that decapsulates.
    decapsulate: Number,
    /// The key type; the standard's without it.
    key_type: Option<Number>,
    /// The attribute that takes the parameter set; the standard's without it.
    parameter_set: Option<Number>,
}

/// A vendor-defined number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
struct Number(u32);

impl TokenTable {
    /// Whether its keys go together.
    pub(super) fn check(&self, has_tpm: bool) -> Result<(), String> {
        let wrong = if self.label.is_some() == self.serial.is_some() {
            "needs either label or serial"
        } else if self.pin_places() != 1 {
            "needs one of pin_file, pin_credential and pin_sealed"
        } else if self.pin_sealed.is_some() && !has_tpm {
            "pin_sealed needs the [tpm] that sealed it"
        } else {
            return Ok(());
        };
        Err(format!("[token] {wrong}"))
    }

    /// In how many places the PIN is said to be.
    fn pin_places(&self) -> usize {
        let given = [self.pin_file.is_some(), self.pin_credential.is_some(), self.pin_sealed.is_some()];
        given.into_iter().filter(|given| *given).count()
    }
}

impl MechanismsTable {
    /// As the token takes it.
    pub fn mechanisms(&self) -> Mechanisms {
        let optional = |number: Option<Number>| number.map(|number| number.0);
        Mechanisms {
            ml_dsa: self.ml_dsa.as_ref().map(|n| VendorNumbers {
                key_pair_gen: n.key_pair_gen.0,
                operation: n.sign.0,
                key_type: optional(n.key_type),
                parameter_set: optional(n.parameter_set),
            }),
            ml_kem: self.ml_kem.as_ref().map(|n| VendorNumbers {
                key_pair_gen: n.key_pair_gen.0,
                operation: n.decapsulate.0,
                key_type: optional(n.key_type),
                parameter_set: optional(n.parameter_set),
            }),
        }
    }
}

impl TryFrom<usize> for Sessions {
    type Error = String;

    fn try_from(sessions: usize) -> Result<Self, String> {
        if (1..=SESSIONS_LIMIT).contains(&sessions) {
            Ok(Self(sessions))
        } else {
            Err(format!("sessions is {sessions}, and must be 1 to {SESSIONS_LIMIT}"))
        }
    }
}

impl From<Sessions> for usize {
    fn from(sessions: Sessions) -> Self {
        sessions.0
    }
}

impl TryFrom<i64> for Number {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        u32::try_from(number).ok().filter(|number| *number >= VENDOR_DEFINED).map(Self).ok_or_else(|| {
            format!(
                "{number:#x} is no vendor-defined number of PKCS#11; those are {VENDOR_DEFINED:#x} to {:#x}",
                u32::MAX
            )
        })
    }
}

fn default_sessions() -> Sessions {
    Sessions(4)
}

fn default_token_deadline() -> Deadline {
    Deadline::from_millis(10_000)
}

#[cfg(test)]
mod tests {
    use keyd_unix::ConfigFile as _;

    use crate::config::Config;

    fn parse(mechanisms: &str) -> Result<Config, String> {
        let token = "[token]\nmodule = \"m\"\nlabel = \"l\"\npin_file = \"p\"\n";
        Config::parse("keyd.toml", &format!("{token}{mechanisms}")).map_err(|failure| failure.message)
    }

    #[test]
    fn a_vendors_numbers_are_read() {
        let text = "[token.mechanisms.ml_dsa]\nkey_pair_gen = 0x80000101\nsign = 0x80000102\n\
                    [token.mechanisms.ml_kem]\nkey_pair_gen = 0xffffffff\ndecapsulate = 0x80000000\n\
                    key_type = 0x80000001\nparameter_set = 2147483650\n";
        let found = parse(text).unwrap().token.unwrap().mechanisms.mechanisms();
        let (ml_dsa, ml_kem) = (found.ml_dsa.unwrap(), found.ml_kem.unwrap());
        assert_eq!((ml_dsa.key_pair_gen, ml_dsa.operation), (0x8000_0101, 0x8000_0102));
        assert_eq!((ml_dsa.key_type, ml_dsa.parameter_set), (None, None));
        assert_eq!((ml_kem.key_pair_gen, ml_kem.operation), (u32::MAX, 0x8000_0000));
        assert_eq!((ml_kem.key_type, ml_kem.parameter_set), (Some(0x8000_0001), Some(0x8000_0002)));
    }

    #[test]
    fn numbers_of_the_standard_and_beyond_32_bits_are_refused_with_their_line() {
        for number in ["0x7fffffff", "0x1d", "0x100000000", "-1"] {
            let text = format!("[token.mechanisms.ml_dsa]\nsign = 0x80000102\nkey_pair_gen = {number}\n");
            let e = parse(&text).unwrap_err();
            assert!(e.starts_with("keyd.toml:7:") && e.contains("no vendor-defined number"), "{e}");
        }
    }

    #[test]
    fn unknown_and_missing_keys_are_named() {
        let e =
            parse("[token.mechanisms.ml_dsa]\nkey_pair_gen = 0x80000101\nsing = 0x80000102\n").unwrap_err();
        assert!(e.contains("keyd.toml:7:1") && e.contains("Did you mean \"sign\"?"), "{e}");
        let e = parse("[token.mechanisms.ml_dsb]\n").unwrap_err();
        assert!(e.contains("Did you mean \"ml_dsa\"?"), "{e}");
        assert!(
            parse("[token.mechanisms.ml_kem]\nkey_pair_gen = 0x80000101\n")
                .unwrap_err()
                .contains("missing field `decapsulate`")
        );
    }
}
