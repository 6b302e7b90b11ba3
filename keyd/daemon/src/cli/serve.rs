//! `keyd serve`.

use std::path::PathBuf;

use clap::Args;
use keyd_core::{Failure, Reason};
use keyd_pkcs11::WorkerCommand;

use crate::config::DEFAULT_CONFIG;
use crate::{process, serve};

/// The hidden command that runs the PKCS#11 worker.
pub const WORKER_COMMAND: &str = "pkcs11-worker";

/// Run the service in the foreground
///
/// Listens on the socket that the configuration names, or on the one that systemd hands over. SIGHUP reads namespaces and
/// policy again, SIGTERM stops. systemd's watchdog is served where it asks. Logs go to standard error; KEYD_LOG sets their
/// level (error, warn, info, debug).
#[derive(Args)]
pub struct Serve {
    /// Configuration file
    #[arg(long, default_value = DEFAULT_CONFIG, value_name = "FILE")]
    config: PathBuf,
}

impl Serve {
    /// Serves until told to stop.
    pub fn run(self) -> Result<(), Failure> {
        process::silence_libtss2()?;
        keyd_unix::log_to_stderr();
        let worker =
            WorkerCommand { program: "/proc/self/exe".into(), args: vec![WORKER_COMMAND.to_owned()] };
        let runtime = keyd_unix::runtime()?;
        let result = runtime.block_on(serve::serve(&self.config, worker));
        // A call that hangs in a device must not keep the process: its thread ends with it.
        runtime.shutdown_background();
        result.map_err(|f| match f.reason {
            Reason::BadConfig => {
                Failure::new(f.reason, format!("{f}\n`keyd config check` checks a configuration."))
            }
            _ => f,
        })
    }
}
