//! A worker that is asked one thing and ends.

use std::collections::BTreeMap;

use crate::config::WorkerCommand;
use crate::error::Error;
use crate::wire::{Answer, Reply, Task};
use crate::{frame, process};

/// Has a worker of its own carry out `task`. Dropped before its end, it kills the worker. `left` says what one that died may
/// leave behind.
pub(crate) async fn ask_once(
    worker: &WorkerCommand,
    environment: &BTreeMap<String, String>,
    task: Task,
    left: &str,
) -> Result<Answer, Error> {
    let mut worker = process::start(worker, environment, task, 0)?;
    let reply: Option<Reply> = frame::read_async(&mut worker.control)
        .await
        .map_err(|error| Error::Protocol { what: error.to_string() })?;
    drop(worker.control);
    // It has answered, so nothing is lost with it; this reaps it.
    let _ = worker.child.kill().await;
    reply.and_then(|reply| reply.answer).ok_or_else(|| Error::WorkerDied { left: left.to_owned() })
}
