//! What each of our programs asks of Unix: a process whose secrets stay in it, a socket, logs and orderly ends, and
//! output with exit codes.

mod blocking;
mod command_line;
mod config;
pub mod file;
mod listener;
mod log;
mod output;
mod process;
mod serve;

pub use blocking::{off_worker, runtime};
pub use command_line::parse;
pub use config::ConfigFile;
pub use listener::bind;
pub use log::log_to_stderr;
pub use output::Output;
pub use process::{forbid_core_dumps, lock_memory, tell_manager, tell_reloading, watchdog};
pub use serve::{serve, told_to_stop};
