//! The command line.

mod accept_store;
mod audit;
mod ca;
mod config;
mod doctor;
mod escrow;
mod files;
mod key;
mod metrics;
mod node;
mod outcomes;
mod reseal;
mod serve;
mod status;
mod token;
mod tpm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use keyd_api::Client;
use keyd_audit::Origin;
use keyd_core::{Failure, Reason};
use keyd_unix::Output;

use crate::process;

/// Holds private keys in an HSM or sealed by the TPM, and uses them for callers that the policy allows.
///
/// `keyd serve` is the service; every other command asks the running service over its socket.
#[derive(Parser)]
#[command(
    name = "keyd",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 denied, 4 no such key, 5 keyd or a device cannot be \
                  reached, 6 the key exists.\n\nExample:\n  keyd key create dev/web --algorithm ml-dsa-65\n  \
                  keyd key sign dev/web --in letter --out letter.sig"
)]
struct Cli {
    /// Socket of the running keyd
    #[arg(long, global = true, env = "KEYD_SOCKET", default_value = keyd_api::DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    /// Make, show, use and destroy keys
    #[command(subcommand)]
    Key(key::Key),
    /// Make the root of a trust domain
    #[command(subcommand)]
    Ca(ca::Ca),
    /// See this node's TPM, as a server that attests it will know it
    #[command(subcommand)]
    Node(node::Node),
    /// See, prepare and clean up PKCS#11 tokens
    #[command(subcommand)]
    Token(token::Token),
    /// See whether keyd, its token and its TPM are well, and what to do if not
    Status,
    /// Look for what does not fit together, such as token objects that no key uses; exit code 1 if there is any
    Doctor,
    /// Print what keyd has counted, as OpenMetrics text
    ///
    /// keyd opens no network socket; node_exporter's textfile collector takes this output as a file.
    Metrics,
    AcceptStore(accept_store::AcceptStore),
    #[command(subcommand)]
    Escrow(escrow::Escrow),
    Reseal(reseal::Reseal),
    /// Sign PCR policies
    #[command(subcommand)]
    Tpm(tpm::Tpm),
    /// Verify and read the audit log
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Check a configuration without starting anything
    #[command(subcommand)]
    Config(config::Config),
    /// The process that loads the vendor's PKCS#11 module; keyd starts it by itself
    #[command(name = serve::WORKER_COMMAND, hide = true)]
    Pkcs11Worker,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli: Cli = match keyd_unix::parse("keyd") {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let output = Output::new("keyd", cli.json);
    // Commands have secrets in hand too: a PIN, the operator's private key, a shared secret.
    if let Err(failure) = keyd_unix::forbid_core_dumps() {
        return output.end(Err(failure));
    }
    // As far as the system grants it. The service tells what to do where it does not.
    if !matches!(cli.command, Command::Serve(_)) {
        keyd_unix::lock_memory();
    }
    // The worker must not start the threads of a runtime: it belongs to the vendor's module.
    if matches!(cli.command, Command::Pkcs11Worker) {
        return keyd_pkcs11::worker::run();
    }
    let touches_tpm =
        matches!(cli.command, Command::AcceptStore(_) | Command::Token(token::Token::SealPin(_)));
    if touches_tpm && let Err(failure) = process::silence_libtss2() {
        return output.end(Err(failure));
    }
    let result = match cli.command {
        Command::Serve(serve) => serve.run(),
        command => keyd_unix::runtime().and_then(|r| r.block_on(ask(command, &cli.socket, &output))),
    };
    output.end(result)
}

async fn ask(command: Command, socket: &Path, output: &Output) -> Result<(), Failure> {
    let client = Client::new(socket);
    match command {
        Command::Key(key) => key.run(&client, output).await,
        Command::Ca(ca) => ca.run(&client, output).await,
        Command::Node(node) => node.run(&client, output).await,
        Command::Token(token) => token.run(&client, output).await,
        Command::Audit(audit) => audit.run(&client, output).await,
        Command::Doctor => doctor::run(&client, output).await,
        Command::Metrics => metrics::run(&client, output).await,
        Command::Status => status::run(&client, output).await,
        Command::Reseal(reseal) => reseal.run(&client, output).await,
        Command::Escrow(escrow) => escrow.run(&client, output).await,
        Command::Tpm(tpm) => tpm.run(output),
        Command::AcceptStore(accept) => accept.run(output).await,
        Command::Config(config) => config.run(output),
        Command::Serve(_) | Command::Pkcs11Worker => {
            Err(Failure::new(Reason::Internal, "not a client command"))
        }
    }
}

/// Who does what no running keyd does.
fn this_process() -> Origin {
    Origin { uid: Some(nix::unistd::geteuid().as_raw()), pid: i32::try_from(std::process::id()).ok() }
}

/// A PCR of the SHA-256 bank with a value, as `7=3d45...`.
fn pcr_value(text: &str) -> Result<(u8, [u8; 32]), String> {
    let read = || {
        let (index, value) = text.split_once('=')?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(value, &mut bytes).ok()?;
        Some((index.parse().ok().filter(|index| *index < 24)?, bytes))
    };
    read().ok_or_else(|| format!("{text:?} is not INDEX=VALUE, a PCR from 0 to 23 and 64 hexadecimal digits"))
}
