//! The command line.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use keyd_core::{Failure, Reason};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, DEFAULT_CONFIG};
use crate::serve;

/// Puts mutual TLS with post-quantum algorithms before a plain TCP server, and lets in the SPIFFE IDs that the
/// configuration names. Its own identity and key come from keyd-agent.
#[derive(Parser)]
#[command(name = "keyd-proxy", version)]
enum Cli {
    /// Run the proxy in the foreground
    ///
    /// SIGTERM stops it: nobody new is let in, and open connections may end within drain_timeout_ms. Logs go to
    /// standard error; KEYD_LOG sets their level (error, warn, info, debug).
    Serve(File),
    /// Check a configuration without starting anything
    #[command(subcommand)]
    Config(Check),
}

#[derive(Subcommand)]
enum Check {
    /// Check a configuration without starting anything
    Check(File),
}

#[derive(clap::Args)]
struct File {
    /// Configuration file
    #[arg(long, default_value = DEFAULT_CONFIG, value_name = "FILE")]
    config: PathBuf,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Serve(file) => Config::read(&file.config).and_then(run),
        Cli::Config(Check::Check(file)) => Config::read(&file.config).map(|config| {
            println!(
                "{} is valid; {} to {}, {} rules",
                file.config.display(),
                config.listen,
                config.upstream,
                config.allow.len()
            );
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("keyd-proxy: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_env("KEYD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Reason::Internal, format!("cannot start a runtime: {e}")))?;
    runtime.block_on(serve::serve(config))
}
