//! `keyd tpm ...`: what goes with a TPM and needs none.

use std::path::PathBuf;

use clap::Subcommand;
use keyd_core::{Failure, Reason};
use keyd_tpm::{PcrValue, SIGNATURES_LIMIT, sign_policy};
use keyd_unix::Output;
use serde_json::json;

use super::files::{read_existing, read_secret, save};
use super::pcr_value;

/// Longest PEM file with a private key, in bytes.
const KEY_LIMIT: usize = 16 * 1024;

/// Signed PCR policies, for seal_to = "signed-policy".
#[derive(Subcommand)]
pub enum Tpm {
    /// Approve a state: sign the values that PCRs have in it, where images are built; it needs no TPM and no keyd
    ///
    /// The signature is added to the file, which goes with the image to the place that policy_signatures names. It is the
    /// file that `systemd-measure sign` writes, so an image that is built with that needs no other.
    SignPolicy {
        /// PEM file of mode 0600 with the RSA private key; its public key is policy_key on the nodes
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Value of a PCR of the SHA-256 bank in the approved state, hexadecimal; may be repeated
        #[arg(long = "pcr", value_name = "INDEX=VALUE", value_parser = pcr_value, required = true)]
        pcrs: Vec<(u8, [u8; 32])>,
        /// File of signatures; it is made where it is missing
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

impl Tpm {
    /// Signs.
    pub fn run(self, output: &Output) -> Result<(), Failure> {
        let Self::SignPolicy { key, pcrs, out } = self;
        let mut values: Vec<_> = pcrs.into_iter().map(|(index, value)| PcrValue { index, value }).collect();
        values.sort_unstable_by_key(|pcr| pcr.index);
        if values.windows(2).any(|pair| matches!(pair, [a, b] if a.index == b.index)) {
            return Err(Failure::new(
                Reason::BadRequest,
                "a PCR has one value in a state; it was given twice",
            ));
        }
        let private = read_secret(&key, KEY_LIMIT)?;
        let existing = read_existing(&out, SIGNATURES_LIMIT)?;
        let text = sign_policy(private.expose(), &values, existing.as_deref())
            .map_err(|f| Failure::new(f.reason, format!("{} with {}: {f}", out.display(), key.display())))?;
        save(&out, text.as_bytes())?;
        let indices: Vec<u8> = values.iter().map(|pcr| pcr.index).collect();
        output.show(&json!({ "out": out, "pcrs": indices }), |_| {
            format!("{} approves a state of {} PCRs", out.display(), indices.len())
        })
    }
}
