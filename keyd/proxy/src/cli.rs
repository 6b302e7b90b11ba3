//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use keyd_core::Failure;
use keyd_unix::{ConfigFile, Output};
use serde_json::json;

use crate::config::Config;
use crate::serve;

/// Puts mutual TLS with post-quantum algorithms before a plain TCP server, and lets in the SPIFFE IDs that the
/// configuration names. Its own identity and key come from keyd-agent.
#[derive(Parser)]
#[command(
    name = "keyd-proxy",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage.\n\nExample:\n  \
                  keyd-proxy config check --config /etc/keyd/proxy/web.toml\n  \
                  systemctl enable --now keyd-proxy@web.service"
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
    /// Configuration file; /etc/keyd/proxy/NAME.toml is the one of keyd-proxy@NAME.service
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli: Cli = match keyd_unix::parse("keyd-proxy") {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let output = Output::new("keyd-proxy", cli.json);
    output.end(match cli.command {
        Command::Serve(file) => Config::read(&file.config).and_then(run),
        Command::Config(Check::Check(file)) => Config::read(&file.config).and_then(|config| {
            let (listen, upstream, rules) = (config.listen, config.upstream, config.allow.len());
            let value = json!({
                "config": file.config, "valid": true, "listen": listen, "upstream": upstream, "rules": rules,
            });
            output.show(&value, |_| {
                format!("{} is valid; {listen} to {upstream}, {rules} rules", file.config.display())
            })
        }),
    })
}

fn run(config: Config) -> Result<(), Failure> {
    keyd_unix::log_to_stderr();
    keyd_unix::runtime()?.block_on(serve::serve(config))
}
