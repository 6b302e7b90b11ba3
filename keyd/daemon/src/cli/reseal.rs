//! `keyd reseal`.

use clap::Args;
use keyd_api::Client;
use keyd_api::v1::KeyOutcome;
use keyd_core::Failure;
use keyd_unix::Output;

use super::outcomes::{self, Counts};
use super::pcr_value;

/// Seal every key that the TPM holds anew: to the PCRs as they are now, and to the policy that keyd.toml names
///
/// Run it after a planned change, while keyd still has the keys in memory or after a start from the former state; and
/// before one, with --pcr: the keys then open in the present state and in the one to come. Run it once more, without
/// --pcr, when the change is done. A key that is sealed so already is left alone.
#[derive(Args)]
pub struct Reseal {
    /// Value that a PCR of the SHA-256 bank will have after a planned change, hexadecimal; may be repeated
    #[arg(long = "pcr", value_name = "INDEX=VALUE", value_parser = pcr_value)]
    pcrs: Vec<(u8, [u8; 32])>,
    /// Say what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Reseal {
    /// Asks keyd, and tells of each key as it is done.
    pub async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let say = |key: &KeyOutcome| output.progress(&outcomes::line(key));
        let keys = client.reseal(&self.pcrs, self.dry_run, say).await?;
        let sentence = |counts: &Counts| {
            let Counts { done, current, due, failed } = counts;
            if self.dry_run {
                format!("{due} would be sealed anew, {current} are as they should be")
            } else {
                format!("{done} sealed anew, {current} were as they should be, {failed} failed")
            }
        };
        outcomes::show(&keys, "resealed", sentence, "keep their old seal", output)
    }
}
