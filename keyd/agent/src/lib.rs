//! `keyd-agent`: attests this node to a SPIRE server with its TPM, and serves X.509-SVIDs to its workloads.

mod cli;
mod config;
mod entry;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod keyd_key;
mod manager;
mod own;
mod proto;
mod run;
mod serve;
mod server;
mod snapshot;
mod state;
mod svid;
mod workload;

pub use cli::main;
