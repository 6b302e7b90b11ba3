//! `keyd-agent serve`: opens everything, listens, and stops cleanly.

use std::path::Path;
use std::time::SystemTime;

use keyd_core::{Failure, Reason};
use keyd_unix::{ConfigFile, off_worker};
use keyd_x509::Certificate;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;

use crate::config::Config;
use crate::error::AgentError;
use crate::manager::{Manager, Parts};
use crate::own::Attestor;
use crate::serve::{About, Desk};
use crate::server::SpireServer;
use crate::state::{State, read_certificates};
use crate::svid::mint::Maker;
use crate::workload::{Connections, Peer};

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps the agent from starting, naming file or directory.
pub async fn run(config_file: &Path) -> Result<(), Failure> {
    let config = Config::read(config_file)?;
    keyd_unix::forbid_core_dumps()?;
    let memory_locked = keyd_unix::lock_memory();
    let parts = {
        let config = config.clone();
        off_worker(move || parts(config)).await?
    };
    let about = About {
        started_at: SystemTime::now(),
        server_address: config.server_address.as_str().to_owned(),
        memory_locked,
    };
    if !Peer::processes_are_certain() {
        tracing::warn!(
            "this kernel is older than Linux 6.5: callers have no selectors but uid, user, gid and group"
        );
    }
    let told_to_stop = keyd_unix::told_to_stop()?;
    let listener = UnixListenerStream::new(keyd_unix::bind(&config.socket)?.0);
    let (manager, told) = Manager::new(parts);
    let router = Desk::new(told, about).router();
    let manager = tokio::spawn(manager.run());
    let stop = async move {
        told_to_stop.await;
        keyd_unix::tell_manager("STOPPING=1");
        // Every open stream ends with what it hears from.
        manager.abort();
    };
    tracing::info!(socket = %config.socket.display(), "keyd-agent serves");
    // Ready means that callers get an answer, also where a node boots long before its uplink is there.
    keyd_unix::tell_manager("READY=1\nSTATUS=not attested yet");
    let connections = Connections::default();
    let incoming = listener.map(|stream| stream.and_then(|stream| connections.admit(stream)));
    keyd_unix::serve(router, incoming, stop).await?;
    tracing::info!("keyd-agent stops");
    Ok(())
}

fn parts(config: Config) -> Result<Parts, AgentError> {
    let (namespace, workloads) = (config.namespace()?, config.workload_namespace()?);
    let state = State::open(&config.state_dir)?;
    let bundle = bundle(&config.trust_bundle, &state)?;
    // A chain that cannot be read is one that the node can have anew.
    let chain = state.chain().unwrap_or_else(|error| {
        tracing::warn!(error = %Failure::from(error), "the agent's certificate is of no use");
        None
    });
    let keyd = keyd_api::Client::new(&config.keyd_socket);
    let algorithm = config.algorithm;
    Ok(Parts {
        server: SpireServer::new(config.server_address, config.trust_domain.clone(), &bundle)?,
        attestor: Attestor { keyd: keyd.clone(), namespace, algorithm, trust_domain: config.trust_domain },
        maker: Maker { keyd, namespace: workloads, algorithm },
        state,
        bundle,
        chain: chain.map(|(chain, _)| chain),
    })
}

/// The newer of the operator's bundle and the one that the server gave last: so the server's word counts, and yet a
/// node whose roots were all replaced while it was away can be helped with a new file.
fn bundle(file: &Path, state: &State) -> Result<Vec<Certificate>, AgentError> {
    let (given, kept) = (read_certificates(file)?, state.bundle()?);
    match (given, kept) {
        (Some((given, at)), Some((_, before))) if at > before => Ok(given),
        (_, Some((kept, _))) => Ok(kept),
        (Some((given, _)), None) => Ok(given),
        (None, None) => {
            let why = format!(
                "trust_bundle {} is not there: put the trust domain's roots into it, as `spire-server bundle show` prints them",
                file.display()
            );
            Err(Failure::new(Reason::BadConfig, why).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::time::Duration;

    use peers::openssl::{Subject, issue};

    use super::*;

    fn written_at(file: &Path, seconds: u64) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        OpenOptions::new().append(true).open(file).unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn the_newer_of_the_operators_and_the_servers_bundle_counts() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state")).unwrap();
        let given = issue(dir.path(), &Subject::ca("given", "td"), None).unwrap().certificate;
        let kept = issue(dir.path(), &Subject::ca("kept", "td"), None).unwrap().certificate;
        let read = |file: &Path| read_certificates(file).unwrap().unwrap().0;
        let (given_roots, kept_roots) = (read(&given), read(&kept));

        assert_eq!(bundle(&given, &state).unwrap(), given_roots, "the first time");
        state.keep_bundle(&kept_roots).unwrap();
        let kept = dir.path().join("state/bundle.pem");
        written_at(&given, 100);
        written_at(&kept, 200);
        assert_eq!(bundle(&given, &state).unwrap(), kept_roots, "the server's word is newer");
        written_at(&given, 300);
        assert_eq!(bundle(&given, &state).unwrap(), given_roots, "brought in by hand");
        std::fs::remove_file(&given).unwrap();
        assert_eq!(bundle(&given, &state).unwrap(), kept_roots);
    }
}
