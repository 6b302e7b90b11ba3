//! The thread that writes.

use std::collections::VecDeque;
use std::thread;

use keyd_audit::{Draft, Log};
use keyd_core::{Failure, Reason};
use tokio::sync::{mpsc, oneshot, watch};

use super::State;
use crate::clock::now;

/// Most records that go to the disk together.
const BATCH: usize = 1024;
/// Most records that are owed while the disk is full. The oldest are given up.
const OWED: usize = 1024;

/// What the thread is asked for, and whom it tells that it is durable or refused.
pub enum Order {
    /// All of these or none.
    Append(Vec<Draft>, oneshot::Sender<Result<(), Failure>>),
    /// This, now or later.
    Owe(Draft, oneshot::Sender<()>),
}

/// How far the log is.
pub fn state(log: &Log) -> State {
    State {
        head: log.head(),
        signed_through: log.signed_through(),
        audit_key: log.audit_key().map(<[u8]>::to_vec),
        blank: log.is_blank(),
        trouble: None,
    }
}

/// Starts the thread. It ends when nobody can order any more.
pub fn start(
    log: Log,
    owed: Option<Draft>,
    orders: mpsc::Receiver<Order>,
    told: watch::Sender<State>,
) -> Result<(), Failure> {
    let writer = Writer { log, owed: owed.into_iter().collect(), orders, told };
    thread::Builder::new()
        .name("keyd-audit".to_owned())
        .spawn(move || writer.run())
        .map(drop)
        .map_err(|e| Failure::new(Reason::Internal, format!("cannot start the audit log's thread: {e}")))
}

struct Writer {
    log: Log,
    owed: VecDeque<Draft>,
    orders: mpsc::Receiver<Order>,
    told: watch::Sender<State>,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.orders.blocking_recv() {
            let (mut batch, mut waiting, mut owing) = (Vec::new(), Vec::new(), Vec::new());
            let mut next = Some(first);
            while let Some(order) = next.take() {
                match order {
                    Order::Append(drafts, reply) => {
                        batch.extend(drafts);
                        waiting.push(reply);
                    }
                    Order::Owe(draft, reply) => {
                        self.owed.push_back(draft);
                        owing.push(reply);
                    }
                }
                if batch.len() < BATCH {
                    next = self.orders.try_recv().ok();
                }
            }
            let result = self.write(batch);
            for reply in waiting {
                let _ = reply.send(result.clone());
            }
            for reply in owing {
                let _ = reply.send(());
            }
        }
    }

    /// What is owed first, then the batch.
    fn write(&mut self, batch: Vec<Draft>) -> Result<(), Failure> {
        let drafts: Vec<_> = self.owed.iter().cloned().chain(batch).collect();
        let result = self.log.append(now(), &drafts).map(drop).map_err(Failure::from);
        let mut state = state(&self.log);
        match &result {
            Ok(()) => self.owed.clear(),
            Err(failure) => {
                tracing::error!(%failure, "the audit log takes no records; what must be recorded is refused");
                state.trouble = Some(failure.message.clone());
                while self.owed.len() > OWED {
                    self.owed.pop_front();
                }
            }
        }
        self.told.send_replace(state);
        result.map_err(|failure| {
            Failure::new(
                failure.reason,
                format!(
                    "{failure}. What must be recorded is refused until it can be; make room on the disk, older files of \
                     the log can be moved elsewhere"
                ),
            )
        })
    }
}
