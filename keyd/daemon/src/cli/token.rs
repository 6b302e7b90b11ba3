//! `keyd token ...`: tokens, before keyd uses them and when something was left in them.

mod init;
mod list;
mod orphan;
mod seal_pin;

use clap::Subcommand;
use keyd_api::Client;
use keyd_core::Failure;
use keyd_pkcs11::WorkerCommand;
use keyd_unix::Output;

use super::serve::WORKER_COMMAND;

/// PKCS#11 tokens.
#[derive(Subcommand)]
pub enum Token {
    List(list::List),
    Init(init::Init),
    SealPin(seal_pin::SealPin),
    RemoveOrphan(orphan::RemoveOrphan),
}

impl Token {
    /// Does it in a worker process, or asks keyd.
    pub async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(output).await,
            Self::Init(init) => init.run(output).await,
            Self::SealPin(seal) => seal.run(output).await,
            Self::RemoveOrphan(orphan) => orphan.run(client, output).await,
        }
    }
}

/// How a worker is started from a command.
fn worker() -> WorkerCommand {
    WorkerCommand { program: "/proc/self/exe".into(), args: vec![WORKER_COMMAND.to_owned()] }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is not NAME=VALUE"))
}
