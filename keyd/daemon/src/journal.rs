//! The audit log of this keyd: what must be recorded is durable before the reply of what it records.
//!
//! One thread writes. Records that wait while it writes go to the disk together. What cannot be recorded is not done;
//! what needs no record (reading, signing without an issuance profile) never waits for the log.

mod repeated;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use keyd_audit::{Draft, Event, Head, Log, Origin, SEGMENT_LIMIT};
use keyd_core::{Failure, Reason};
use tokio::sync::{mpsc, oneshot, watch};

use repeated::Repeated;
use writer::Order;

use crate::clock::now;

/// The directory of the log below the state directory.
pub const DIRECTORY: &str = "audit";
/// Most appends that wait for the disk at once; more wait for their turn.
const QUEUE: usize = 1024;

/// The log, for whoever has something to record.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    queue: mpsc::Sender<Order>,
    state: watch::Receiver<State>,
    repeated: Mutex<Repeated>,
}

/// How far the log is.
#[derive(Clone, Debug)]
pub struct State {
    /// The last durable record.
    pub head: Head,
    /// The last record that a checkpoint covers.
    pub signed_through: u64,
    /// The audit key that the log has named, DER SubjectPublicKeyInfo.
    pub audit_key: Option<Vec<u8>>,
    /// Whether it tells of nothing but starts and stops.
    pub blank: bool,
    /// Why the last record could not be written, where it could not.
    pub trouble: Option<String>,
}

impl Journal {
    /// Opens the log below the state directory, which must go as far as `anchor`. Blocks on the disk.
    ///
    /// # Errors
    /// [`Reason::Integrity`] for a log that does not hold or was cut, with the way out; [`Reason::AuditFailed`].
    pub fn open(state_dir: &Path, anchor: Option<Head>) -> Result<Self, Failure> {
        let dir = state_dir.join(DIRECTORY);
        let (mut log, torn) = Log::open(&dir, SEGMENT_LIMIT, anchor).map_err(|error| {
            let mut failure = Failure::from(error);
            if failure.reason == Reason::Integrity {
                failure.message.push_str(
                    ". Put back what is missing, or keep it as evidence and begin a new log: `keyd audit restart`",
                );
            }
            failure
        })?;
        let mut owed = None;
        if let Some(torn) = torn {
            tracing::warn!(
                bytes = torn.bytes,
                "the audit log ended in a record that was not whole; it is cut off"
            );
            let event = Event::TailCut { bytes: torn.bytes, sha384: torn.sha384 };
            let draft = Draft::done(Origin::KEYD, event);
            // At once, since this start may end before anything else is recorded.
            owed = log.append(now(), std::slice::from_ref(&draft)).is_err().then_some(draft);
        }
        let (queue, orders) = mpsc::channel(QUEUE);
        let (told, state) = watch::channel(writer::state(&log));
        writer::start(log, owed, orders, told)?;
        Ok(Self { shared: Arc::new(Shared { dir, queue, state, repeated: Mutex::default() }) })
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// How far the log is.
    pub fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// Appends records that belong together; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::AuditFailed`]: what they record must not be done.
    pub async fn append(&self, drafts: Vec<Draft>) -> Result<(), Failure> {
        let (reply, done) = oneshot::channel();
        self.send(Order::Append(drafts, reply)).await?;
        done.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Records what has happened already. Where that is not possible now, it is owed: written before anything else as soon
    /// as it is.
    pub async fn owe(&self, draft: Draft) {
        let (reply, done) = oneshot::channel();
        if self.send(Order::Owe(draft, reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Records what a caller can repeat at will: the first time at once, then counted and recorded now and then.
    pub async fn repeated(&self, draft: Draft) {
        let first = self.shared.repeated.lock().unwrap_or_else(PoisonError::into_inner).meet(draft);
        if let Some(draft) = first {
            self.owe(draft).await;
        }
    }

    /// Records the repetitions counted so far; with `all`, also those whose time is not over.
    pub async fn flush(&self, all: bool) {
        let due = self.shared.repeated.lock().unwrap_or_else(PoisonError::into_inner).due(all);
        for draft in due {
            self.owe(draft).await;
        }
    }

    async fn send(&self, order: Order) -> Result<(), Failure> {
        self.shared.queue.send(order).await.map_err(|_| ended())
    }
}

fn ended() -> Failure {
    Failure::new(Reason::AuditFailed, "the audit log's writer has ended; restart keyd")
}
