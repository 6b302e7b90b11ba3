//! `keyd-agent serve`.

use std::path::PathBuf;

use clap::Args;
use keyd_core::{Failure, Reason};

use crate::config::DEFAULT_CONFIG;
use crate::run;

/// Run the agent in the foreground
///
/// Listens on the socket that the configuration names, or on the one that systemd hands over. SIGTERM stops. Logs go to
/// standard error; KEYD_LOG sets their level (error, warn, info, debug).
#[derive(Args)]
pub struct Serve {
    /// Configuration file
    #[arg(long, default_value = DEFAULT_CONFIG, value_name = "FILE")]
    config: PathBuf,
}

impl Serve {
    /// Serves until told to stop.
    ///
    /// # Errors
    /// Whatever keeps the agent from starting.
    pub fn run(self) -> Result<(), Failure> {
        keyd_unix::log_to_stderr();
        let runtime = keyd_unix::runtime()?;
        let result = runtime.block_on(run::run(&self.config));
        // A look at a file system that hangs must not keep the process.
        runtime.shutdown_background();
        result.map_err(|f| match f.reason {
            Reason::BadConfig => {
                Failure::new(f.reason, format!("{f}\n`keyd-agent config check` checks a configuration."))
            }
            _ => f,
        })
    }
}
