//! A running worker, as the side that serves sees it: many calls in flight over one socket.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use keyd_core::{Failure, Reason};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::pin_gate::PinGate;
use crate::wire::{Answer, Failed, PinNews, Reply, Request};
use crate::{frame, lock};

/// Calls given to a worker at once, for each session: one at work, one waiting, so that no session idles between.
const CALLS_PER_SESSION: usize = 2;

/// A worker and the calls it has.
pub(crate) struct Link {
    /// Process id.
    pub pid: u32,
    /// When it was started.
    pub started: Instant,
    /// Why it is of no more use, where it said so itself.
    pub farewell: OnceLock<Failure>,
    patience: Duration,
    last_id: AtomicU64,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    slots: Arc<Semaphore>,
    state: Mutex<State>,
    pin: Arc<PinGate>,
}

struct State {
    end: Option<(Instant, End)>,
    calls: HashMap<u64, Call>,
    child: Option<Child>,
}

struct Call {
    reply: oneshot::Sender<Answer>,
    /// Held until the worker has answered, also where nobody waits any more.
    _slot: OwnedSemaphorePermit,
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
    pub fn new(
        child: Child,
        socket: UnixStream,
        sessions: usize,
        patience: Duration,
        pin: Arc<PinGate>,
    ) -> Arc<Self> {
        let (reader, writer) = socket.into_split();
        let link = Arc::new(Self {
            pid: child.id().unwrap_or_default(),
            started: Instant::now(),
            farewell: OnceLock::new(),
            patience,
            last_id: AtomicU64::new(0),
            writer: tokio::sync::Mutex::new(writer),
            slots: Arc::new(Semaphore::new(sessions * CALLS_PER_SESSION)),
            state: Mutex::new(State { end: None, calls: HashMap::new(), child: Some(child) }),
            pin,
        });
        tokio::spawn(attend(link.clone(), reader));
        link
    }

    /// When the worker ended; `None` while it serves.
    pub fn ended(&self) -> Option<Instant> {
        lock(&self.state).end.map(|(at, _)| at)
    }

    /// Has the worker answer `request`, whose id is set here. The caller bounds the wait by dropping the future
    /// at `deadline`; the worker is then judged hung where it had fair time.
    pub async fn call(self: &Arc<Self>, request: &mut Request, deadline: Instant) -> Result<Answer, Lost> {
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| Lost::BeforeSending)?;
        request.id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let frame = frame::encode(request).map_err(Lost::Unsendable)?;
        let mut writer = self.writer.lock().await;
        let (mut sent, answer) = self.register(request.id, slot, deadline).ok_or(Lost::BeforeSending)?;
        writer.write_all(&frame).await.map_err(|_| Lost::InFlight)?;
        drop(writer);
        sent.whole = true;
        answer.await.map_err(|_| Lost::InFlight)
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
        let calls = std::mem::take(&mut state.calls);
        drop(state);
        self.slots.close();
        drop(calls);
    }

    fn register(
        self: &Arc<Self>,
        id: u64,
        slot: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Option<(Sent, oneshot::Receiver<Answer>)> {
        let mut state = lock(&self.state);
        if state.end.is_some() {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        state.calls.insert(id, Call { reply, _slot: slot });
        Some((Sent { link: self.clone(), id, at: Instant::now(), deadline, whole: false }, answer))
    }

    fn has(&self, id: u64) -> bool {
        lock(&self.state).calls.contains_key(&id)
    }

    fn deliver(&self, Reply { id, answer }: Reply) {
        let Some(answer) = answer else { return };
        if let Answer::Pin(news) = answer {
            return self.pin.note(PinNews::try_from(news).unwrap_or(PinNews::Unspecified));
        }
        let retire = match &answer {
            Answer::Failed(failed) => {
                let failure = Failure::from(failed);
                self.pin.note_failure(&failure);
                failed.retire && self.farewell.set(failure).is_ok()
            }
            _ => false,
        };
        let call = lock(&self.state).calls.remove(&id);
        if let Some(call) = call {
            // A caller that left wants no answer.
            let _ = call.reply.send(answer);
        }
        if retire {
            self.close(End::Useless);
        }
    }
}

/// Reads replies until the worker ends, then reaps it.
async fn attend(link: Arc<Link>, mut reader: OwnedReadHalf) {
    let error = loop {
        match frame::read_async::<Reply>(&mut reader).await {
            Ok(Some(reply)) => link.deliver(reply),
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
    let (pid, farewell) = (link.pid, link.farewell.get());
    match end {
        Some((_, End::Dismissed)) => tracing::info!(pid, "PKCS#11 worker dismissed"),
        _ => tracing::warn!(pid, ?end, ?status, ?error, ?farewell, "PKCS#11 worker ended"),
    }
}

// === impl Sent ===

/// A call that the worker has. Where its caller leaves, by deadline or otherwise, this still sees to it that a
/// hung worker ends.
struct Sent {
    link: Arc<Link>,
    id: u64,
    at: Instant,
    deadline: Instant,
    /// Whether the whole frame was written. Half a frame makes the rest of the stream unreadable.
    whole: bool,
}

impl Drop for Sent {
    fn drop(&mut self) {
        if !self.whole {
            return self.link.close(End::Hung);
        }
        if !self.link.has(self.id) {
            return;
        }
        // A call that waited its turn for most of its time says little about the worker, which gets its full time.
        let fair = self.at.elapsed() >= self.link.patience / 2;
        if fair && Instant::now() >= self.deadline {
            return self.link.close(End::Hung);
        }
        let (link, id, until) = (self.link.clone(), self.id, self.at + self.link.patience);
        // Without a runtime nothing waits for the worker, and it ends with its socket.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep_until(until).await;
                if link.has(id) {
                    link.close(End::Hung);
                }
            });
        }
    }
}

impl From<&Failed> for Failure {
    fn from(failed: &Failed) -> Self {
        Self::new(Reason::from_name(&failed.reason).unwrap_or(Reason::Internal), failed.message.as_str())
    }
}
