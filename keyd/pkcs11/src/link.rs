//! A running worker, as the side that serves sees it: a socket for each of its sessions, and one for its life.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use keyd_core::{Failure, Reason};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::exchange::Exchange;
use crate::pin_gate::PinGate;
use crate::process::Worker;
use crate::wire::{Answer, Failed, PinNews, Reply, Request};
use crate::{frame, lock};

/// A worker and its sessions.
pub(crate) struct Link {
    /// Process id.
    pub pid: u32,
    /// When it was started.
    pub started: Instant,
    /// Why it is of no more use, where it said so itself.
    pub farewell: OnceLock<Failure>,
    patience: Duration,
    /// Sockets of the sessions that have nothing to do. The one used last is taken first, because its caches are warm.
    idle: Mutex<Vec<UnixStream>>,
    /// A permit for each of them.
    free: Arc<Semaphore>,
    state: Mutex<State>,
    /// Whether the worker is gone, and all that it said of the PIN was heard.
    over: watch::Sender<bool>,
    pin: Arc<PinGate>,
}

struct State {
    end: Option<(Instant, End)>,
    child: Option<Child>,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The worker ended before it had the call.
    BeforeSending,
    /// The worker ended while it had the call.
    InFlight,
    /// The request is no frame.
    Unsendable(io::Error),
}

/// Why a worker ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// By itself, or by a hand that is not keyd's.
    Died,
    /// It did not answer or did not read.
    Hung,
    /// It said that it is of no more use.
    Useless,
    /// Nobody uses the token any more.
    Dismissed,
}

impl Link {
    /// Takes over a worker that was just started. One that keeps a call longer than `patience` is killed.
    pub fn new(worker: Worker, patience: Duration, pin: Arc<PinGate>) -> Arc<Self> {
        let Worker { child, control, sessions } = worker;
        let link = Arc::new(Self {
            pid: child.id().unwrap_or_default(),
            started: Instant::now(),
            farewell: OnceLock::new(),
            patience,
            free: Arc::new(Semaphore::new(sessions.len())),
            idle: Mutex::new(sessions),
            state: Mutex::new(State { end: None, child: Some(child) }),
            over: watch::Sender::new(false),
            pin,
        });
        tokio::spawn(attend(link.clone(), control));
        link
    }

    /// When the worker ended; `None` while it serves.
    pub fn ended(&self) -> Option<Instant> {
        lock(&self.state).end.map(|(at, _)| at)
    }

    /// Has the worker answer `request`. The caller bounds the wait by dropping the future at `deadline`; the worker is
    /// then judged hung where it had fair time.
    pub async fn call(self: &Arc<Self>, request: &Request, deadline: Instant) -> Result<Answer, Lost> {
        let frame = frame::encode(request).map_err(Lost::Unsendable)?;
        let slot = self.free.clone().acquire_owned().await.map_err(|_| Lost::BeforeSending)?;
        let socket = lock(&self.idle).pop().ok_or(Lost::BeforeSending)?;
        let mut turn = Turn {
            link: self.clone(),
            exchange: Some(Exchange::new(socket, frame)),
            slot: Some(slot),
            at: Instant::now(),
            deadline,
        };
        match turn.exchange.as_mut().ok_or(Lost::BeforeSending)?.run().await {
            Ok(Reply { answer: Some(answer) }) => {
                self.heed(&answer);
                turn.finish();
                Ok(answer)
            }
            Ok(Reply { answer: None }) | Err(_) => {
                turn.exchange = None;
                self.close(End::Died);
                // A refused PIN must be known before the caller is told otherwise.
                self.over().await;
                Err(Lost::InFlight)
            }
        }
    }

    /// Whether the worker is gone, and nothing of what it said is unheard.
    pub fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits until then.
    pub async fn over(&self) {
        // The sender is this link's own, so it does not go away meanwhile.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Ends the worker, and with it every call it has. Does nothing a second time.
    pub fn close(&self, why: End) {
        let mut state = lock(&self.state);
        if state.end.is_some() {
            return;
        }
        state.end = Some((Instant::now(), why));
        if let Some(child) = state.child.as_mut() {
            // It fails where the process is gone already, which is what is wanted.
            let _ = child.start_kill();
        }
        drop(state);
        self.free.close();
    }

    /// What an answer says about the PIN or about the worker itself.
    fn heed(&self, answer: &Answer) {
        match answer {
            Answer::Pin(news) => self.pin.note(PinNews::try_from(*news).unwrap_or(PinNews::Unspecified)),
            Answer::Failed(failed) => {
                let failure = Failure::from(failed);
                self.pin.note_failure(&failure);
                if failed.retire && self.farewell.set(failure).is_ok() {
                    self.close(End::Useless);
                }
            }
            _ => {}
        }
    }
}

/// Hears what the worker says unasked until it ends, then reaps it.
async fn attend(link: Arc<Link>, mut control: UnixStream) {
    let error = loop {
        match frame::read_async::<Reply>(&mut control).await {
            Ok(Some(reply)) => reply.answer.iter().for_each(|answer| link.heed(answer)),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    link.close(End::Died);
    let (child, end) = {
        let mut state = lock(&link.state);
        (state.child.take(), state.end)
    };
    let status = match child {
        Some(mut child) => child.wait().await.ok(),
        None => None,
    };
    link.over.send_replace(true);
    let (pid, farewell) = (link.pid, link.farewell.get());
    match end {
        Some((_, End::Dismissed)) => tracing::info!(pid, "PKCS#11 worker dismissed"),
        _ => tracing::warn!(pid, ?end, ?status, ?error, ?farewell, "PKCS#11 worker ended"),
    }
}

// === impl Turn ===

/// A session at work. Where its caller leaves, by deadline or otherwise, this still sees to it that a hung worker
/// ends, and that the session is used again only once it has answered.
struct Turn {
    link: Arc<Link>,
    exchange: Option<Exchange>,
    slot: Option<OwnedSemaphorePermit>,
    at: Instant,
    deadline: Instant,
}

impl Turn {
    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            lock(&self.link.idle).push(exchange.into_socket());
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(mut exchange) = self.exchange.take() else { return };
        // A call that waited its turn for most of its time says little about the worker, which gets its full time.
        let fair = self.at.elapsed() >= self.link.patience / 2;
        if fair && Instant::now() >= self.deadline {
            return self.link.close(End::Hung);
        }
        // Without a runtime nothing waits for the worker, and it ends with its sockets.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (link, slot, until) = (self.link.clone(), self.slot.take(), self.at + self.link.patience);
        runtime.spawn(async move {
            match timeout_at(until, exchange.run()).await {
                Ok(Ok(Reply { answer })) => {
                    answer.iter().for_each(|answer| link.heed(answer));
                    lock(&link.idle).push(exchange.into_socket());
                }
                Ok(Err(_)) => link.close(End::Died),
                Err(_) => link.close(End::Hung),
            }
            drop(slot);
        });
    }
}

impl From<&Failed> for Failure {
    fn from(failed: &Failed) -> Self {
        Self::new(Reason::from_name(&failed.reason).unwrap_or(Reason::Internal), failed.message.as_str())
    }
}
