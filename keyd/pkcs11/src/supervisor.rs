//! Keeps a token's worker running: started on demand, replaced when it ends, not in a storm.

use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyd_core::{Failure, Reason, Secret};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{TokenConfig, TokenName, WorkerCommand};
use crate::link::{End, Link};
use crate::pin_gate::PinGate;
use crate::wire::{Serve, Task};
use crate::{lock, process};

/// A worker that lived so long ended by chance, not by habit.
const STEADY: Duration = Duration::from_secs(10);
/// Pause before the third worker in a row that did not last; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause: several tries fit into the 30 s that SPIRE waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long it counts that the PIN could not be had, before it is asked for again.
const REFUSAL_COUNTS: Duration = Duration::from_millis(100);

/// Owns the worker of one token.
pub(crate) struct Supervisor {
    config: TokenConfig,
    command: WorkerCommand,
    /// The last time that the PIN was asked for, from the first use of the token on.
    asked: Mutex<Option<watch::Receiver<Asked>>>,
    pin: Arc<PinGate>,
    state: Mutex<State>,
    starts: AtomicU64,
}

/// What came of asking for the PIN, and when, once it came.
type Asked = Option<(Instant, Result<Secret, Failure>)>;

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    /// Workers in a row that did not last.
    short_lived: u32,
    not_before: Option<Instant>,
    farewell: Option<Failure>,
}

/// What a caller can do now.
pub(crate) enum Next {
    /// Call.
    Ready(Arc<Link>),
    /// Come again once the worker before has ended.
    Ending(Arc<Link>),
    /// Come again then: the last workers did not last.
    Wait(Instant),
}

impl Supervisor {
    pub fn new(config: TokenConfig, command: WorkerCommand) -> Self {
        Self {
            config,
            command,
            asked: Mutex::default(),
            pin: Arc::default(),
            state: Mutex::default(),
            starts: AtomicU64::new(0),
        }
    }

    /// The worker, started if need be.
    ///
    /// # Errors
    /// The PIN was refused or cannot be had; the program does not start; or, while a pause lasts, what the last worker
    /// said.
    pub async fn link(&self) -> Result<Next, Failure> {
        self.pin.check()?;
        let secret = self.secret().await?;
        let mut state = lock(&self.state);
        if let Some(link) = &state.link {
            let Some(ended) = link.ended() else { return Ok(Next::Ready(link.clone())) };
            // What became of the PIN must be known before another may present it.
            if !link.is_over() {
                return Ok(Next::Ending(link.clone()));
            }
            let lasted = ended.duration_since(link.started) >= STEADY;
            state.farewell = link.farewell.get().cloned();
            state.short_lived = if lasted { 0 } else { state.short_lived + 1 };
            state.not_before = Some(ended + pause(state.short_lived));
            state.link = None;
        }
        let pin_accepted = self.pin.check_start(&self.config.describe())?;
        if let Some(at) = state.not_before.filter(|at| *at > Instant::now()) {
            return state.farewell.clone().map_or(Ok(Next::Wait(at)), Err);
        }
        let link = self.start(&secret, pin_accepted)?;
        state.link = Some(link.clone());
        Ok(Next::Ready(link))
    }

    /// How many workers were started.
    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Process id of the worker that serves now.
    pub fn pid(&self) -> Option<u32> {
        lock(&self.state).link.as_ref().filter(|link| link.ended().is_none()).map(|link| link.pid)
    }

    /// Whether the PIN was asked for and is not there yet.
    pub fn awaits_pin(&self) -> bool {
        lock(&self.asked).as_ref().is_some_and(|asked| asked.borrow().is_none())
    }

    /// The PIN. Whoever holds it is asked once for all who want it, and a refusal counts for a while. It may take longer
    /// than the caller waits; the PIN is there for the next one then.
    async fn secret(&self) -> Result<Secret, Failure> {
        let mut asked = self.ask();
        let answer = asked.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        match answer {
            Some((_, pin)) => pin,
            None => Err(Failure::new(Reason::Internal, "asking for the PIN broke off; try again")),
        }
    }

    fn ask(&self) -> watch::Receiver<Asked> {
        let mut last = lock(&self.asked);
        let counts = |asked: &&watch::Receiver<Asked>| match &*asked.borrow() {
            Some((_, Ok(_))) => true,
            Some((at, Err(_))) => at.elapsed() < REFUSAL_COUNTS,
            // Not where whoever asked broke off.
            None => asked.has_changed().is_ok(),
        };
        if let Some(asked) = last.as_ref().filter(counts) {
            return asked.clone();
        }
        let (tell, asked) = watch::channel(None);
        let config = self.config.clone();
        tokio::spawn(async move {
            let pin = config.pin().await;
            tell.send_replace(Some((Instant::now(), pin)));
        });
        *last = Some(asked.clone());
        asked
    }

    fn start(&self, secret: &Secret, pin_accepted: bool) -> Result<Arc<Link>, Failure> {
        let config = &self.config;
        let (label, serial) = match &config.token {
            TokenName::Label(label) => (Some(label.clone()), None),
            TokenName::Serial(serial) => (None, Some(serial.clone())),
        };
        let serve = Serve {
            module: config.module.as_os_str().as_bytes().to_vec(),
            label,
            serial,
            pin: secret.expose().to_vec(),
            mechanisms: Some((&config.mechanisms).into()),
            pin_accepted,
        };
        let worker = process::start(&self.command, &config.environment, Task::Serve(serve), config.sessions)
            .map_err(|error| error.into_failure(&config.describe()))?;
        let link = Link::new(worker, config.call_deadline, self.pin.clone());
        self.starts.fetch_add(1, Ordering::Relaxed);
        tracing::info!(pid = link.pid, module = %config.module.display(), "PKCS#11 worker started");
        Ok(link)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(link) = lock(&self.state).link.take() {
            link.close(End::Dismissed);
        }
    }
}

/// How long to wait after the `short_lived`th worker that did not last.
fn pause(short_lived: u32) -> Duration {
    match short_lived.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_replacement_is_at_once_and_the_pause_is_bounded() {
        assert_eq!(pause(0), Duration::ZERO);
        assert_eq!(pause(1), Duration::ZERO);
        assert_eq!(pause(2), FIRST_PAUSE);
        assert_eq!(pause(3), FIRST_PAUSE * 2);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
