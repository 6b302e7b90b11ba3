//! `keyd token seal-pin`.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use keyd_core::{Failure, Reason, Secret};
use keyd_unix::{ConfigFile, Output};
use serde_json::json;

use crate::config::{Config, DEFAULT_CONFIG};
use crate::{devices, pin};

/// Seal a user PIN to this node's TPM, for pin_sealed in keyd.toml
///
/// The PIN comes from standard input or a file of mode 0600, and is sealed as [tpm] in keyd.toml says. It works without a
/// running keyd. Run it as keyd's user, and again after a planned change of what the TPM boots: `keyd reseal` does not
/// renew it.
#[derive(Args)]
pub struct SealPin {
    /// Configuration file that names the TPM
    #[arg(long, default_value = DEFAULT_CONFIG, value_name = "FILE")]
    config: PathBuf,
    /// File of mode 0600 with the PIN, or - for standard input
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// File for the sealed PIN
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl SealPin {
    /// Seals.
    pub async fn run(self, output: &Output) -> Result<(), Failure> {
        let config = Config::read(&self.config)?;
        let table = config.tpm.as_ref().ok_or_else(|| {
            Failure::new(
                Reason::BadConfig,
                format!("{}: there is no [tpm] to seal to", self.config.display()),
            )
        })?;
        let secret =
            if self.input.as_os_str() == "-" { from_standard_input()? } else { pin::from_file(&self.input)? };
        pin::seal(&secret, &devices::tpm(table)?, &self.out).await?;
        output.show(&json!({ "out": self.out }), |_| format!("{} has the sealed PIN", self.out.display()))
    }
}

fn from_standard_input() -> Result<Secret, Failure> {
    let mut bytes = Vec::with_capacity(pin::PIN_LIMIT);
    let bad = |why: String| Failure::new(Reason::BadRequest, format!("the PIN on standard input: {why}"));
    let read = std::io::stdin().lock().take(pin::PIN_LIMIT as u64).read_to_end(&mut bytes);
    read.map_err(|e| bad(format!("cannot read it: {e}")))?;
    pin::from_text(bytes).ok_or_else(|| bad("it is empty".to_owned()))
}
