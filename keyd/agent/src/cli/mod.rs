//! The command line.

mod config;
mod fetch;
mod serve;
mod status;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
#[cfg(fuzzing)]
pub(crate) use fetch::certificates;
use keyd_unix::Output;
use std::path::PathBuf;

/// Attests this node to a SPIRE server with its TPM, and serves X.509-SVIDs to the workloads on it.
///
/// `keyd-agent serve` is the agent; every other command asks the running agent over its socket.
#[derive(Parser)]
#[command(
    name = "keyd-agent",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 denied, 5 the agent cannot be reached.\n\nExample:\n  \
                  keyd-agent status\n  keyd-agent fetch x509 --write /run/web/svid"
)]
struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    /// See how long each identity still lives, and what is wrong
    Status(Socket),
    /// Get what a workload gets
    #[command(subcommand)]
    Fetch(fetch::Fetch),
    /// Check a configuration without starting anything
    #[command(subcommand)]
    Config(config::Config),
}

/// Where the agent listens.
#[derive(Args)]
struct Socket {
    /// Socket of the running agent
    #[arg(long, env = "KEYD_AGENT_SOCKET", default_value = keyd_api::agent::DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli: Cli = match keyd_unix::parse("keyd-agent") {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let output = Output::new("keyd-agent", cli.json);
    let result = match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Config(config) => config.run(&output),
        Command::Status(at) => {
            keyd_unix::runtime().and_then(|r| r.block_on(status::run(&at.socket, &output)))
        }
        Command::Fetch(fetch) => keyd_unix::runtime().and_then(|r| r.block_on(fetch.run(&output))),
    };
    output.end(result)
}
