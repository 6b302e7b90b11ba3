//! The process itself.

use std::time::Duration;

use keyd_core::{Failure, Reason};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Keeps secrets out of core dumps and away from debuggers of the same user.
///
/// # Errors
/// [`Reason::Internal`]; the program then must not go on.
pub fn forbid_core_dumps() -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| Failure::new(Reason::Internal, format!("cannot forbid core dumps: {e}")))
}

/// Locks all memory, present and future, as it is touched, so that no secret is swapped out. Where the kernel grants
/// too little for that (RLIMIT_MEMLOCK), nothing is locked, and the log tells the remedy: a half-granted lock would
/// make later allocations fail.
pub fn lock_memory() -> bool {
    let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    if !unlimited && !nix::unistd::geteuid().is_root() {
        tracing::warn!("memory is not locked: give the service LimitMEMLOCK=infinity");
        return false;
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).inspect_err(|error| tracing::warn!(%error, "memory is not locked")).is_ok()
}

/// Tells systemd, where it started us, as `READY=1`. Without it this does nothing.
pub fn tell_manager(state: &str) {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Custom(state)]) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Tells systemd, where it started us, that a reload begins; `READY=1` ends it.
pub fn tell_reloading() {
    let told = sd_notify::NotifyState::monotonic_usec_now()
        .and_then(|now| sd_notify::notify(&[sd_notify::NotifyState::Reloading, now]));
    if let Err(error) = told {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// How long systemd waits for the next `WATCHDOG=1`, where it watches over this process.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())
}
