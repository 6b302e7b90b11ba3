//! SIGHUP: the configuration as it now stands counts, where that takes no restart.

use std::path::{Path, PathBuf};

use keyd_audit::{Draft, Event, Origin};
use keyd_core::Failure;
use keyd_unix::{ConfigFile, off_worker};
use tokio::signal::unix::SignalKind;

use crate::config::Config;
use crate::in_force::{InForce, Reloaded};
use crate::journal::Journal;
use crate::keyring::Keyring;
use crate::process::on;

/// Reads the configuration again at each SIGHUP. A wrong file changes nothing.
///
/// # Errors
/// [`keyd_core::Reason::Internal`] when signals cannot be watched for.
pub fn follow(rules: InForce, keyring: Keyring, journal: Journal, config_file: &Path) -> Result<(), Failure> {
    let (mut hangup, file) = (on(SignalKind::hangup())?, config_file.to_path_buf());
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            keyd_unix::tell_reloading();
            match reload(&rules, &keyring, &journal, file.clone()).await {
                Ok(reloaded) => tell(&reloaded, &keyring),
                Err(failure) => {
                    tracing::error!(%failure, "configuration not reloaded; the old one stays");
                    let draft = Draft::failed(Origin::KEYD, Event::PolicyReloaded {}, failure.reason);
                    journal.owe(draft).await;
                }
            }
            keyd_unix::tell_manager("READY=1");
        }
    });
    Ok(())
}

/// Another policy comes into force only when all of it can, and the log says so.
async fn reload(
    rules: &InForce,
    keyring: &Keyring,
    journal: &Journal,
    file: PathBuf,
) -> Result<Reloaded, Failure> {
    let prepare = {
        let rules = rules.clone();
        move || rules.prepare(Config::read(&file)?)
    };
    let (next, reloaded) = off_worker(prepare).await?;
    // A key that is being made is in no list that could be checked.
    let _nothing_is_made = keyring.nothing_is_made().await;
    keyring.check_guards(&next.config)?;
    journal.append(vec![Draft::done(Origin::KEYD, Event::PolicyReloaded {})]).await?;
    rules.put(next);
    Ok(reloaded)
}

fn tell(reloaded: &Reloaded, keyring: &Keyring) {
    for namespace in &reloaded.gone {
        let keys = keyring.list(namespace).len();
        if keys > 0 {
            tracing::warn!(%namespace, keys, "namespace left the configuration; its keys stay, for nobody's use");
        }
    }
    let added: Vec<_> = reloaded.added.iter().map(ToString::to_string).collect();
    let gone: Vec<_> = reloaded.gone.iter().map(ToString::to_string).collect();
    tracing::info!(added = added.join(", "), gone = gone.join(", "), "configuration reloaded");
    if !reloaded.waiting.is_empty() {
        let changed = reloaded.waiting.join(", ");
        tracing::warn!(changed, "parts of the configuration take a restart; keyd goes on with the old ones");
    }
}
