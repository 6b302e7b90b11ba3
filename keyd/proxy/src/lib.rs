//! `keyd-proxy`: mutual TLS before a plain server, with rules by SPIFFE ID.

mod cli;
mod config;
mod connection;
#[cfg(fuzzing)]
pub mod fuzzing;
mod identity;
mod relay;
mod serve;

pub use cli::main;
