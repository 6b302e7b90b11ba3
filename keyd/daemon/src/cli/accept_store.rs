//! `keyd accept-store`. It works without a running keyd, and only then.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use keyd_audit::{Draft, Event};
use keyd_core::{Failure, Reason};
use keyd_tpm::Counter;
use keyd_unix::{ConfigFile, Output};
use serde_json::json;

use super::this_process;
use crate::config::{Config, DEFAULT_CONFIG};
use crate::devices;
use crate::journal::Journal;
use crate::records::Records;
use crate::store::Store;

/// Accept the store as it is, once, where keyd refuses it as an older copy
///
/// keyd notices by a counter in the TPM when an older copy of its store was put back, and does not start. If it was you,
/// and there is no newer copy, this binds the store to the counter as it is now, with keyd stopped. Keys that were deleted
/// or replaced since that copy was made are then there again: delete them. Keys made since are lost. Every other copy of
/// the store is refused from then on.
#[derive(Args)]
pub struct AcceptStore {
    /// Configuration file
    #[arg(long, default_value = DEFAULT_CONFIG, value_name = "FILE")]
    config: PathBuf,
}

impl AcceptStore {
    /// Binds the store.
    pub async fn run(self, output: &Output) -> Result<(), Failure> {
        let config = Config::read(&self.config)?;
        let Some(table) = config.tpm.as_ref().filter(|table| table.counter) else {
            return Err(Failure::new(
                Reason::BadConfig,
                format!(
                    "{}: no [tpm] with a counter is configured, so every store is accepted",
                    self.config.display()
                ),
            ));
        };
        let store = Store::open(&config.state_dir)?;
        let keys = store.load()?.len();
        let tpm = Arc::new(devices::tpm(table)?);
        let journal = Journal::open(&config.state_dir, store.audit_anchor()?)?;
        let event = Event::StoreAccepted { keys: keys as u64 };
        journal.append(vec![Draft::done(this_process(), event.clone())]).await?;
        let accepted = match Records::accept(store.clone(), tpm, table.counter_handle).await {
            Ok(accepted) => accepted,
            Err(failure) => {
                journal.owe(Draft::failed(this_process(), event, failure.reason)).await;
                return Err(failure);
            }
        };
        store.close()?;
        let counter = match accepted.counter {
            Counter::At(value) => Some(value),
            Counter::Absent | Counter::Foreign | Counter::Unused => None,
        };
        let value = json!({
            "keys": keys, "store_was_at": accepted.store, "counter_was_at": counter, "now_at": accepted.now,
        });
        output.show(&value, |_| {
            let was = match (accepted.store, counter) {
                (Some(store), Some(counter)) => format!("it was at change {store}, the counter at {counter}"),
                (Some(store), None) => format!("it was at change {store}; its counter was not in the TPM, a new one is"),
                (None, _) => "it was bound to no counter".to_owned(),
            };
            format!(
                "the store with {keys} keys is accepted; {was}. Both are at {} now. Start keyd, and look with \
                 `keyd key list` and `keyd doctor` at what it has.",
                accepted.now
            )
        })
    }
}
