//! What happens to processes.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::sleep;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Stops a process, as if it hung. It has stopped once each of its threads has.
///
/// # Errors
/// It has ended.
pub async fn freeze(process: Pid) -> std::io::Result<()> {
    kill(process, Signal::SIGSTOP)?;
    while runs(process)? {
        sleep(PAUSE).await;
    }
    Ok(())
}

fn runs(process: Pid) -> std::io::Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        if !status.contains("State:\tT") {
            return Ok(true);
        }
    }
    Ok(false)
}
