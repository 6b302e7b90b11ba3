//! `keyd token list`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keyd_core::{Failure, Reason};
use keyd_pkcs11::{ShownToken, TokenState, list_tokens};
use keyd_unix::{ConfigFile, Output};
use serde_json::{Value, json};

use super::{assignment, worker};
use crate::config::{Config, DEFAULT_CONFIG, TokenTable};

/// How long a module may take to look at all its slots.
const DEADLINE: Duration = Duration::from_secs(60);

/// List the tokens that a module shows, and which of them keyd uses
///
/// It works without a running keyd, in a worker process, and needs no PIN. The module is the one of the configuration unless
/// another is given.
#[derive(Args)]
pub struct List {
    /// Configuration file whose [token] names the module
    #[arg(long, default_value = DEFAULT_CONFIG, value_name = "FILE", conflicts_with = "module")]
    config: PathBuf,
    /// Another module than the configuration's
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Environment that the other module wants; may be repeated
    #[arg(long = "environment", value_name = "NAME=VALUE", value_parser = assignment, requires = "module")]
    environment: Vec<(String, String)>,
}

impl List {
    /// Looks.
    pub async fn run(self, output: &Output) -> Result<(), Failure> {
        let (module, environment, configured) = match self.module {
            Some(module) => (module, self.environment.into_iter().collect::<BTreeMap<_, _>>(), None),
            None => {
                let table = Config::read(&self.config)?.token.ok_or_else(|| {
                    let file = self.config.display();
                    Failure::new(Reason::BadConfig, format!("{file} has no [token]; give --module FILE"))
                })?;
                (table.module.clone(), table.environment.clone(), Some(table))
            }
        };
        // Before there is a configuration, there are the standard's numbers alone.
        let mechanisms = configured.as_ref().map(|table| table.mechanisms.mechanisms()).unwrap_or_default();
        let tokens = list_tokens(&worker(), &module, &environment, &mechanisms, DEADLINE).await?;
        let named = |token: &&ShownToken| configured.as_ref().is_some_and(|table| is_named(table, token));
        // Of several that the configuration does not tell apart keyd takes none.
        let alone = tokens.iter().filter(named).count() == 1;
        let used = |token: &ShownToken| match named(&token) {
            true if alone => Used::Yes,
            true => Used::Ambiguous,
            false => Used::No,
        };
        let described: Vec<_> = tokens.iter().map(|token| describe(token, used(token))).collect();
        output.show(&json!({ "module": module, "tokens": described }), |_| {
            if tokens.is_empty() {
                return format!("{} shows no token\n", module.display());
            }
            tokens.iter().map(|token| human(token, used(token))).collect()
        })
    }
}

/// Whether keyd uses a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Used {
    Yes,
    No,
    /// The configuration names it, and another one too.
    Ambiguous,
}

fn is_named(table: &TokenTable, token: &ShownToken) -> bool {
    token.state != TokenState::Blank
        && match (&table.label, &table.serial) {
            (Some(label), _) => *label == token.label,
            (None, serial) => serial.as_ref() == Some(&token.serial),
        }
}

fn describe(token: &ShownToken, used: Used) -> Value {
    json!({
        "slot": token.slot,
        "label": token.label,
        "serial": token.serial,
        "product": token.product,
        "state": token.state.name(),
        "algorithms": token.algorithms,
        "wraps": token.wraps,
        "used": used == Used::Yes,
    })
}

fn human(token: &ShownToken, used: Used) -> String {
    let makes = if token.algorithms.is_empty() { "no keys".to_owned() } else { token.algorithms.join(", ") };
    format!(
        "slot {}: {:?}, serial number {:?}, {}: {}{}\n  makes {makes}; {}\n",
        token.slot,
        token.label,
        token.serial,
        token.product,
        token.state.name(),
        match used {
            Used::Yes => "; keyd uses it",
            Used::No => "",
            Used::Ambiguous => "; keyd does not use it, because the configuration names another one too",
        },
        if token.wraps { "wraps with AES-GCM" } else { "cannot wrap" },
    )
}
