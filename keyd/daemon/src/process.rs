//! What keyd asks of its own process.

use std::os::unix::process::CommandExt;
use std::process::Command;

use keyd_core::{Failure, Reason};
use nix::sys::prctl::set_name;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// libtss2 writes to standard error what is no error of ours, and only its environment silences it. The environment of
/// a running process cannot be changed soundly, so keyd starts itself once more with it; the process id stays.
///
/// # Errors
/// [`Reason::Internal`] when the program cannot be started again.
pub fn silence_libtss2() -> Result<(), Failure> {
    let (name, value) = keyd_tpm::LOG_VARIABLE;
    if std::env::var_os(name).is_some() {
        // The kernel named this one after the file that it was started from: `exe`.
        return set_name(c"keyd")
            .map_err(|e| Failure::new(Reason::Internal, format!("cannot name the process: {e}")));
    }
    let mut arguments = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    if let Some(program) = arguments.next() {
        again.arg0(program);
    }
    let error = again.args(arguments).env(name, value).exec();
    Err(Failure::new(Reason::Internal, format!("cannot start keyd again with {name}={value}: {error}")))
}

/// Tells of a signal instead of letting it end the process.
///
/// # Errors
/// [`Reason::Internal`] when no handler can be set.
pub fn on(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|e| Failure::new(Reason::Internal, format!("cannot watch for signals: {e}")))
}
