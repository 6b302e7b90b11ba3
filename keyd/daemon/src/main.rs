//! `keyd`: the key service, and the operator's commands that speak to it.

mod cli;
mod config;
mod devices;
mod doctor;
mod keyring;
mod places;
mod process;
mod serve;
mod service;
mod store;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
