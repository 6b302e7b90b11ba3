//! `keyd serve`: opens everything, listens, and stops cleanly.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use keyd_core::{Failure, Reason, Sealer, Vault};
use keyd_pkcs11::WorkerCommand;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;

use crate::config::Config;
use crate::devices;
use crate::keyring::Keyring;
use crate::places::Places;
use crate::service::{Admin, Services};
use crate::store::Store;

/// Serves until SIGTERM or SIGINT; SIGHUP reads the policy again.
///
/// # Errors
/// Whatever keeps keyd from starting, naming file, device or directory.
pub async fn serve(config_file: &Path, worker: WorkerCommand) -> Result<(), Failure> {
    let config = Config::read(config_file)?;
    let policy = config.policy()?;
    keyd_unix::forbid_core_dumps()?;
    let memory_locked = keyd_unix::lock_memory();
    let state_dir = config.state_dir.clone();
    let store = off_worker(move || Store::open(&state_dir)).await?;

    let token = config.token.as_ref().map(|t| devices::token(t, worker)).transpose()?.map(Arc::new);
    let tpm = config.tpm.as_ref().map(devices::tpm).transpose()?.map(Arc::new);
    let places = Places {
        vault: token.clone().map(|t| t as Arc<dyn Vault>),
        wrapper: token.map(|t| t as Arc<dyn Sealer>),
        tpm: tpm.clone().map(|t| t as Arc<dyn Sealer>),
    };
    let keyring = {
        let (config, places) = (config.clone(), places.clone());
        off_worker(move || Keyring::load(config, places, store)).await?
    };
    let admin = Admin { started_at: now(), memory_locked, namespaces: config.namespaces.clone(), places };
    let services = Services::new(policy, keyring, tpm, admin);

    let stop = keyd_unix::told_to_stop()?;
    let listener = keyd_unix::bind(&config.socket)?;
    let router = services.router(config.limits.calls_per_connection);
    follow_reloads(services, config_file)?;
    tracing::info!(socket = %config.socket.display(), "keyd serves");
    keyd_unix::tell_manager("READY=1");
    keyd_unix::serve(router, UnixListenerStream::new(listener), stop).await?;
    keyd_unix::tell_manager("STOPPING=1");
    tracing::info!("keyd stops");
    Ok(())
}

/// SIGHUP puts the policy of the configuration as it now stands in force. A wrong file changes nothing.
fn follow_reloads(services: Services, config_file: &Path) -> Result<(), Failure> {
    let (mut hangup, file) = (on(SignalKind::hangup())?, config_file.to_path_buf());
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let file = file.clone();
            match off_worker(move || Config::read(&file)?.policy()).await {
                Ok(policy) => {
                    services.replace_policy(policy);
                    tracing::info!("policy reloaded");
                }
                Err(failure) => tracing::error!(%failure, "policy not reloaded; the old one stays"),
            }
        }
    });
    Ok(())
}

fn on(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|e| Failure::new(Reason::Internal, format!("cannot watch for signals: {e}")))
}

async fn off_worker<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Failure::new(Reason::Internal, format!("start-up broke off: {e}"))))
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}
