//! `keyd-proxy`: mutual TLS before a plain server, with rules by SPIFFE ID.

mod cli;
mod config;
mod connection;
mod identity;
mod relay;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
