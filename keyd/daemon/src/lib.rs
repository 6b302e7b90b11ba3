//! `keyd`: the key service, and the operator's commands that speak to it.

mod cli;
mod config;
mod devices;
mod doctor;
#[cfg(fuzzing)]
pub mod fuzzing;
mod keyring;
mod places;
mod process;
mod serve;
mod service;
mod store;

pub use cli::main;
