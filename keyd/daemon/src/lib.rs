//! `keyd`: the key service, and the operator's commands that speak to it.

mod checkpoints;
mod cli;
mod clock;
mod config;
mod devices;
mod doctor;
#[cfg(fuzzing)]
pub mod fuzzing;
mod in_force;
mod journal;
mod keyring;
mod limits;
mod metrics;
mod pin;
mod places;
mod process;
mod records;
mod reload;
mod serve;
mod service;
mod store;
mod watchdog;

pub use cli::main;
