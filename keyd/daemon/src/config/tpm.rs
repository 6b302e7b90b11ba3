//! The `[tpm]` table.

use std::path::PathBuf;

use keyd_tpm::Tcti;
use serde::Deserialize;

use super::deadline::Deadline;

/// Highest PCR.
const PCR_MAX: u8 = 23;
/// The NV indices that TPMs leave to their owner (TCG Registry of Reserved TPM 2.0 Handles §2.2).
const OWNER_INDICES: std::ops::RangeInclusive<u32> = 0x0180_0000..=0x01bf_ffff;

/// `[tpm]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmTable {
    /// How to reach it: `device:/dev/tpmrm0`, or `swtpm:host=127.0.0.1,port=2321` in tests.
    pub tcti: Tcti,
    /// Persistent handle of the storage root key.
    #[serde(default = "default_srk_handle")]
    pub srk_handle: u32,
    /// Name of the storage root key, hexadecimal, pinned at enrolment; `keyd node srk` prints it.
    pub srk_name: Option<SrkName>,
    /// What keys are sealed to, beyond this TPM.
    #[serde(default)]
    pub seal_to: SealTo,
    /// PCRs of the SHA-256 bank, for `seal_to = "pcrs"`.
    #[serde(default)]
    pub pcrs: Vec<u8>,
    /// PEM file with the RSA public key whose holder signs PCR policies.
    pub policy_key: Option<PathBuf>,
    /// File of signed PCR policies, as `systemd-measure sign` writes it.
    pub policy_signatures: Option<PathBuf>,
    /// Whether the store is bound to a counter in the TPM, so that an older copy of it is refused.
    #[serde(default = "default_counter")]
    pub counter: bool,
    /// NV index of that counter, in the range of the TPM's owner.
    #[serde(default = "default_counter_handle")]
    pub counter_handle: u32,
    /// How long one call may take, in ms.
    #[serde(default = "default_deadline")]
    pub call_deadline_ms: Deadline,
}

/// The Name of a storage root key (TPM 2.0 Part 1 §16), written in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SrkName(Vec<u8>);

/// What keys are sealed to, beyond this TPM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SealTo {
    /// Nothing: this TPM opens them, whatever it booted.
    #[default]
    ThisTpm,
    /// The values that `pcrs` have at sealing (PolicyPCR).
    Pcrs,
    /// PCR values that the holder of `policy_key` signs (PolicyAuthorize).
    SignedPolicy,
}

impl TpmTable {
    /// Whether its keys go together.
    pub(super) fn check(&self) -> Result<(), String> {
        let ascending = self.pcrs.is_sorted_by(|a, b| a < b);
        if !ascending || self.pcrs.last().is_some_and(|last| *last > PCR_MAX) {
            return Err(format!("[tpm] pcrs is no ascending list of PCRs from 0 to {PCR_MAX}"));
        }
        if (self.seal_to == SealTo::Pcrs) == self.pcrs.is_empty() {
            return Err("[tpm] pcrs and seal_to = \"pcrs\" belong together".to_owned());
        }
        if !OWNER_INDICES.contains(&self.counter_handle) {
            return Err(format!(
                "[tpm] counter_handle {:#x} is not from {:#x} to {:#x}, the NV indices of a TPM's owner",
                self.counter_handle,
                OWNER_INDICES.start(),
                OWNER_INDICES.end()
            ));
        }
        if self.policy_key.is_some() != self.policy_signatures.is_some() {
            return Err("[tpm] policy_key and policy_signatures belong together".to_owned());
        }
        // Without it they still open what was sealed to them before.
        if self.seal_to == SealTo::SignedPolicy && self.policy_key.is_none() {
            return Err("[tpm] seal_to = \"signed-policy\" needs policy_key and policy_signatures".to_owned());
        }
        Ok(())
    }
}

impl TryFrom<String> for SrkName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        hex::decode(&text)
            .map(Self)
            .map_err(|e| format!("srk_name {text:?} is not hexadecimal: {e}. `keyd node srk` prints it"))
    }
}

impl From<SrkName> for Vec<u8> {
    fn from(name: SrkName) -> Self {
        name.0
    }
}

fn default_srk_handle() -> u32 {
    0x8100_0001
}

fn default_counter() -> bool {
    true
}

fn default_counter_handle() -> u32 {
    0x0180_4b44
}

fn default_deadline() -> Deadline {
    Deadline::from_millis(20_000)
}

#[cfg(test)]
mod tests {
    use keyd_unix::ConfigFile;

    use crate::config::Config;

    #[test]
    fn what_keys_are_sealed_to_is_told_whole() {
        for (rest, why) in [
            ("seal_to = \"pcrs\"", "pcrs and seal_to"),
            ("pcrs = [7]", "pcrs and seal_to"),
            ("seal_to = \"pcrs\"\npcrs = [7, 7]", "ascending"),
            ("seal_to = \"pcrs\"\npcrs = [11, 7]", "ascending"),
            ("seal_to = \"pcrs\"\npcrs = [24]", "0 to 23"),
            ("seal_to = \"signed-policy\"", "needs policy_key"),
            ("counter_handle = 0x01c00002", "counter_handle 0x1c00002"),
            ("policy_key = \"/k\"", "belong together"),
            ("seal_to = \"signed-policy\"\npolicy_signatures = \"/s\"", "belong together"),
            ("seal_to = \"pcr\"", "Did you mean"),
        ] {
            let text = format!("[tpm]\ntcti = \"device:/dev/tpmrm0\"\n{rest}");
            let message = Config::parse("keyd.toml", &text).unwrap_err().message;
            assert!(message.contains(why), "{rest}: {message}");
        }
        let whole = "[tpm]\ntcti = \"device:/dev/tpmrm0\"\nseal_to = \"pcrs\"\npcrs = [7, 11]\n\
                     policy_key = \"/k\"\npolicy_signatures = \"/s\"";
        assert_eq!(Config::parse("keyd.toml", whole).unwrap().tpm.unwrap().pcrs, [7, 11]);
    }
}
