//! systemd's watchdog: told that keyd is well for as long as keyd answers itself.
//!
//! keyd calls itself as any caller does, over a new connection to its socket, and the answer takes the locks and the disk
//! thread that other calls take. A runtime that is stuck, a lock that is never given back, a disk that hangs or a socket that
//! was removed all end the pings, and systemd starts keyd anew.

use std::path::PathBuf;
use std::time::Duration;

use keyd_api::Client;
use tokio::time::{MissedTickBehavior, interval};

/// Watches over the keyd on this socket, where systemd asks for it (WatchdogSec= in the unit).
pub fn start(socket: PathBuf) {
    if let Some(patience) = keyd_unix::watchdog() {
        tracing::info!(seconds = patience.as_secs_f64(), "systemd watches over keyd");
        tokio::spawn(watch(socket, patience));
    }
}

/// Tells systemd that all is well three times within its patience, each time after an answer that took no longer than that.
async fn watch(socket: PathBuf, patience: Duration) {
    let pace = patience / 3;
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match Client::new(&socket).with_deadline(pace).ping().await {
            Ok(()) => keyd_unix::tell_manager("WATCHDOG=1"),
            Err(failure) => {
                tracing::error!(%failure, "keyd does not answer itself; systemd will start it anew");
            }
        }
    }
}
