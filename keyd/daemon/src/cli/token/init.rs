//! `keyd token init`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keyd_core::Failure;
use keyd_pkcs11::{NewToken, Provisioned, init_token};
use keyd_unix::Output;
use serde_json::json;

use super::{assignment, worker};
use crate::pin;

/// How long initialising may take: some tokens make keys of their own at it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Initialise a blank token; one of this label that exists already is left alone
///
/// It works without a running keyd, in a worker process. Run it as keyd's user where the token's files shall be that user's.
#[derive(Args)]
pub struct Init {
    /// The vendor's PKCS#11 module
    #[arg(long, value_name = "FILE")]
    module: PathBuf,
    /// Label that the token gets
    #[arg(long)]
    label: String,
    /// File of mode 0600 with the security officer's PIN
    #[arg(long, value_name = "FILE")]
    so_pin_file: PathBuf,
    /// File of mode 0600 with the user PIN
    #[arg(long, value_name = "FILE")]
    pin_file: PathBuf,
    /// Environment that the module wants, such as SOFTHSM2_CONF=/etc/keyd/softhsm2.conf; may be repeated
    #[arg(long = "environment", value_name = "NAME=VALUE", value_parser = assignment)]
    environment: Vec<(String, String)>,
}

impl Init {
    /// Prepares the token.
    pub async fn run(self, output: &Output) -> Result<(), Failure> {
        let Self { module, label, so_pin_file, pin_file, environment } = self;
        let wanted = NewToken {
            module,
            label: label.clone(),
            so_pin: pin::from_file(&so_pin_file)?,
            user_pin: pin::from_file(&pin_file)?,
            environment: environment.into_iter().collect::<BTreeMap<_, _>>(),
            deadline: DEADLINE,
        };
        let initialised = init_token(&worker(), &wanted).await? == Provisioned::Initialised;
        output.show(&json!({ "label": label, "initialised": initialised }), |_| {
            let did = if initialised { "is initialised" } else { "was there already, and is left as it is" };
            format!("token {label:?} {did}")
        })
    }
}
