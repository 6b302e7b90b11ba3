//! `keyd reseal`.

use clap::Args;
use keyd_api::Client;
use keyd_api::v1::ResealedKey;
use keyd_core::{Failure, Reason};
use keyd_unix::Output;
use serde_json::{Value, json};

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
        let keys = client.reseal(&self.pcrs, self.dry_run, |key| output.progress(&line(key))).await?;
        let count = |outcome: &str| keys.iter().filter(|key| key.outcome == outcome).count();
        let (resealed, current, due, failed) =
            (count("resealed"), count("current"), count("due"), count("failed"));
        let described: Vec<Value> = keys.iter().map(describe).collect();
        let value = json!({
            "keys": described, "resealed": resealed, "current": current, "due": due, "failed": failed,
        });
        output.show(&value, |_| {
            if self.dry_run {
                format!("{due} would be sealed anew, {current} are as they should be")
            } else {
                format!("{resealed} sealed anew, {current} were as they should be, {failed} failed")
            }
        })?;
        match keys.iter().find(|key| key.outcome == "failed") {
            None => Ok(()),
            Some(first) => {
                let reason = Reason::from_name(&first.reason).unwrap_or(Reason::Internal);
                Err(Failure::new(
                    reason,
                    format!("{failed} keys keep their old seal, first {}: {}", first.key, first.message),
                ))
            }
        }
    }
}

fn line(key: &ResealedKey) -> String {
    let message = if key.message.is_empty() { String::new() } else { format!(": {}", key.message) };
    format!("{} of {}: {} {}{message}", key.number, key.of, key.key, key.outcome)
}

fn describe(key: &ResealedKey) -> Value {
    match key.outcome.as_str() {
        "failed" => json!({
            "key": key.key, "outcome": key.outcome, "reason": key.reason, "message": key.message,
        }),
        _ => json!({ "key": key.key, "outcome": key.outcome }),
    }
}
