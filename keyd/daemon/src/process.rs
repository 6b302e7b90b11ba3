//! What keyd asks of its own process for its TPM library.

use std::os::unix::process::CommandExt;
use std::process::Command;

use keyd_core::{Failure, Reason};

/// libtss2 writes to standard error what is no error of ours, and only its environment silences it. The environment of
/// a running process cannot be changed soundly, so keyd starts itself once more with it; the process id stays.
///
/// # Errors
/// [`Reason::Internal`] when the program cannot be started again.
pub fn silence_libtss2() -> Result<(), Failure> {
    let (name, value) = keyd_tpm::LOG_VARIABLE;
    if std::env::var_os(name).is_some() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    if let Some(program) = arguments.next() {
        again.arg0(program);
    }
    let error = again.args(arguments).env(name, value).exec();
    Err(Failure::new(Reason::Internal, format!("cannot start keyd again with {name}={value}: {error}")))
}
