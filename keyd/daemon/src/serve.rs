//! `keyd serve`: opens everything, listens, and stops cleanly.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyd_audit::{Draft, Event, Origin};
use keyd_core::{Failure, Reason, Sealer, Vault};
use keyd_pkcs11::WorkerCommand;
use keyd_tpm::Tpm;
use keyd_unix::{ConfigFile, off_worker};
use tokio::signal::unix::SignalKind;

use crate::checkpoints::Checkpoints;
use crate::config::Config;
use crate::in_force::InForce;
use crate::journal::Journal;
use crate::keyring::Keyring;
use crate::limits::connections_per_user;
use crate::metrics::Limit;
use crate::places::Places;
use crate::records::Records;
use crate::service::{Admin, Services};
use crate::store::Store;
use crate::{clock, devices, process, reload, watchdog};

/// How long a stop waits for the audit key's last signature.
const LAST_SIGNATURE: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT; SIGHUP reads the configuration again.
///
/// # Errors
/// Whatever keeps keyd from starting, naming file, device or directory.
pub async fn serve(config_file: &Path, worker: WorkerCommand) -> Result<(), Failure> {
    let config = Config::read(config_file)?;
    let rules = InForce::new(config.clone())?;
    let memory_locked = keyd_unix::lock_memory();
    take_full_disks_as_errors()?;
    let state_dir = config.state_dir.clone();
    let (store, journal) = off_worker(move || {
        let store = Store::open(&state_dir)?;
        let journal = Journal::open(&state_dir, store.audit_anchor()?)?;
        Ok::<_, Failure>((store, journal))
    })
    .await?;

    let tpm = config.tpm.as_ref().map(devices::tpm).transpose()?.map(Arc::new);
    let token = match &config.token {
        Some(table) => Some(Arc::new(devices::token(table, worker, tpm.as_ref())?)),
        None => None,
    };
    let places = Places {
        vault: token.clone().map(|t| t as Arc<dyn Vault>),
        wrapper: token.clone().map(|t| t as Arc<dyn Sealer>),
        tpm: tpm.clone().map(|t| t as Arc<dyn Sealer>),
    };
    let keyring = {
        let (rules, places, records) =
            (rules.clone(), places.clone(), records(&config, store.clone(), tpm.as_ref()));
        let journal = journal.clone();
        off_worker(move || Keyring::load(rules, places, records, journal)).await?
    };
    refuse_older_store(&keyring).await?;
    let checkpoints = Checkpoints::new(journal.clone(), keyring.clone(), store);
    let admin = Admin { started_at: clock::now(), memory_locked, token, places };
    let services =
        Services::new(rules.clone(), keyring.clone(), (journal.clone(), checkpoints.clone()), tpm, admin);

    let stop = keyd_unix::told_to_stop()?;
    let (listener, socket) = keyd_unix::bind(&config.socket)?;
    let refused = keyring.metrics().limited(Limit::ConnectionsPerUser);
    let incoming = connections_per_user(listener, config.limits.connections_per_user, refused);
    let router = services.router(config.limits.calls_per_user);
    // Not before all is accepted: a manager starts what fails again and again.
    let version = env!("CARGO_PKG_VERSION").to_owned();
    journal.owe(Draft::done(Origin::KEYD, Event::Started { version })).await;
    reload::follow(rules, keyring.clone(), journal.clone(), config_file)?;
    let signing = tokio::spawn(checkpoints.clone().keep());
    tracing::info!(socket = %socket.display(), "keyd serves");
    keyd_unix::tell_manager("READY=1");
    watchdog::start(socket);
    let stop = async {
        stop.await;
        keyd_unix::tell_manager("STOPPING=1");
    };
    keyd_unix::serve(router, incoming, stop).await?;
    signing.abort();
    journal.flush(true).await;
    journal.owe(Draft::done(Origin::KEYD, Event::Stopped {})).await;
    if tokio::time::timeout(LAST_SIGNATURE, checkpoints.sign()).await.is_err() {
        tracing::warn!("the audit key did not sign in time; the next start signs the end of the log");
    }
    keyring.close().await?;
    tracing::info!("keyd stops");
    Ok(())
}

/// The records, bound to the TPM's counter where there is a TPM.
fn records(config: &Config, store: Store, tpm: Option<&Arc<Tpm>>) -> Records {
    match (&config.tpm, tpm) {
        (Some(table), Some(tpm)) if table.counter => {
            Records::guarded(store, Arc::clone(tpm), table.counter_handle)
        }
        (Some(_), _) => {
            tracing::warn!("[tpm] counter = false: an older copy of the store is not noticed");
            Records::unguarded(store)
        }
        (None, _) => Records::unguarded(store),
    }
}

/// A TPM that is away may come later: then the first call that needs a key asks it.
async fn refuse_older_store(keyring: &Keyring) -> Result<(), Failure> {
    match keyring.check_records().await {
        Err(failure) if matches!(failure.reason, Reason::StoreRolledBack | Reason::StoreFailed) => {
            Err(failure)
        }
        Err(failure) => {
            tracing::warn!(%failure, "cannot tell yet whether the store is an older copy; no key is used until then");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Without a handler, a file that reaches the limit on its size (RLIMIT_FSIZE) would end the process.
fn take_full_disks_as_errors() -> Result<(), Failure> {
    process::on(SignalKind::from_raw(nix::libc::SIGXFSZ)).map(drop)
}
