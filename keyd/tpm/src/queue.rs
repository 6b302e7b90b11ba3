//! One bounded queue of two priorities between async callers and the TPM's thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::worker::Worker;

/// Most calls waiting at each priority; a TPM does about ten a second.
const QUEUE_LIMIT: usize = 64;

/// Which calls go first. Within a priority it is first come, first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Somebody waits for it.
    Interactive,
    /// Done when nothing interactive waits.
    Background,
}

/// What the thread is to do. It gives its result to the caller itself.
pub(crate) type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// The queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    interactive: VecDeque<Job>,
    background: VecDeque<Job>,
    busy_since: Option<Instant>,
    closed: bool,
}

impl Queue {
    pub(crate) fn push(&self, priority: Priority, job: Job) -> Result<(), Full> {
        let mut state = self.lock();
        let jobs = match priority {
            Priority::Interactive => &mut state.interactive,
            Priority::Background => &mut state.background,
        };
        if jobs.len() >= QUEUE_LIMIT {
            return Err(Full);
        }
        jobs.push_back(job);
        self.changed.notify_one();
        Ok(())
    }

    /// Blocks the calling thread until there is a job; none once the queue is closed and empty.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        state.busy_since = None;
        loop {
            let job = state.interactive.pop_front().or_else(|| state.background.pop_front());
            if job.is_some() {
                state.busy_since = Some(Instant::now());
                return job;
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How long the thread has been in the job that it has now.
    pub(crate) fn busy_for(&self) -> Option<Duration> {
        self.lock().busy_since.map(|since| since.elapsed())
    }

    /// Lets the thread end when it has done what waits.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::TpmConfig;

    #[test]
    fn interactive_calls_go_first_each_in_its_order() {
        let queue = Arc::new(Queue::default());
        let done = Arc::new(Mutex::new(Vec::new()));
        for (priority, name) in [
            (Priority::Background, "b1"),
            (Priority::Interactive, "i1"),
            (Priority::Background, "b2"),
            (Priority::Interactive, "i2"),
        ] {
            let done = Arc::clone(&done);
            queue.push(priority, Box::new(move |_| done.lock().unwrap().push(name))).unwrap();
        }
        queue.close();
        Worker::run(&queue, TpmConfig::new("device:/dev/tpmrm0".parse().unwrap()));
        assert_eq!(*done.lock().unwrap(), ["i1", "i2", "b1", "b2"]);
        assert_eq!(queue.busy_for(), None);
    }

    #[test]
    fn a_full_queue_refuses_and_the_other_priority_has_room() {
        let queue = Queue::default();
        let fill = || (0..QUEUE_LIMIT + 1).map(|_| queue.push(Priority::Background, Box::new(|_| {})));
        let refused: Vec<_> = fill().filter(Result::is_err).collect();
        assert_eq!(refused, [Err(Full)]);
        assert_eq!(queue.push(Priority::Interactive, Box::new(|_| {})), Ok(()));
    }

    #[test]
    fn a_job_in_work_shows() {
        let queue = Queue::default();
        queue.push(Priority::Interactive, Box::new(|_| {})).unwrap();
        assert_eq!(queue.busy_for(), None);
        assert!(queue.next().is_some());
        assert!(queue.busy_for().is_some());
    }
}
