//! One bounded queue of two priorities between async callers and the TPM's thread. Users take turns in it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::worker::Worker;

/// Most calls of one user waiting at each priority; a TPM does about ten a second.
const QUEUE_LIMIT: usize = 64;

/// Which calls go first. Within a priority users take turns, and of one user's calls the first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Somebody waits for it.
    Interactive,
    /// Done when nothing interactive waits.
    Background,
}

/// What the thread is to do. It gives its result to the caller itself.
pub(crate) type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// As many calls of this user wait as may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    interactive: Turns,
    background: Turns,
    busy_since: Option<Instant>,
    closed: bool,
}

/// The calls of one priority, by user: the first has the next turn. keyd itself is none.
#[derive(Default)]
struct Turns {
    users: VecDeque<(Option<u32>, VecDeque<Job>)>,
}

impl Queue {
    pub(crate) fn push(&self, priority: Priority, user: Option<u32>, job: Job) -> Result<(), Full> {
        let mut state = self.lock();
        let turns = match priority {
            Priority::Interactive => &mut state.interactive,
            Priority::Background => &mut state.background,
        };
        turns.push(user, job)?;
        self.changed.notify_one();
        Ok(())
    }

    /// Blocks the calling thread until there is a job; none once the queue is closed and empty.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        state.busy_since = None;
        loop {
            let job = state.interactive.next().or_else(|| state.background.next());
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

// === impl Turns ===

impl Turns {
    fn push(&mut self, user: Option<u32>, job: Job) -> Result<(), Full> {
        match self.users.iter_mut().find(|(other, _)| *other == user) {
            Some((_, jobs)) if jobs.len() >= QUEUE_LIMIT => return Err(Full),
            Some((_, jobs)) => jobs.push_back(job),
            None => self.users.push_back((user, [job].into())),
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Job> {
        let (user, mut jobs) = self.users.pop_front()?;
        let job = jobs.pop_front();
        if !jobs.is_empty() {
            self.users.push_back((user, jobs));
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::TpmConfig;

    /// The names of these calls in the order in which they are done.
    fn done(calls: &[(Priority, Option<u32>, &'static str)]) -> Vec<&'static str> {
        let queue = Arc::new(Queue::default());
        let done = Arc::new(Mutex::new(Vec::new()));
        for (priority, user, name) in calls.iter().copied() {
            let done = Arc::clone(&done);
            queue.push(priority, user, Box::new(move |_| done.lock().unwrap().push(name))).unwrap();
        }
        queue.close();
        Worker::run(&queue, TpmConfig::new("device:/dev/tpmrm0".parse().unwrap()));
        assert_eq!(queue.busy_for(), None);
        std::mem::take(&mut *done.lock().unwrap())
    }

    #[test]
    fn interactive_calls_go_first_each_in_its_order() {
        let done = done(&[
            (Priority::Background, None, "b1"),
            (Priority::Interactive, None, "i1"),
            (Priority::Background, None, "b2"),
            (Priority::Interactive, None, "i2"),
        ]);
        assert_eq!(done, ["i1", "i2", "b1", "b2"]);
    }

    #[test]
    fn users_take_turns_however_many_calls_one_has() {
        let of = |user, name| (Priority::Interactive, user, name);
        let done = done(&[
            of(Some(1), "a1"),
            of(Some(1), "a2"),
            of(Some(1), "a3"),
            of(Some(2), "b1"),
            of(None, "k1"),
            of(Some(2), "b2"),
        ]);
        assert_eq!(done, ["a1", "b1", "k1", "a2", "b2", "a3"]);
    }

    #[test]
    fn a_user_whose_part_is_full_is_refused_and_all_else_has_room() {
        let queue = Queue::default();
        let push = |priority, user| queue.push(priority, Some(user), Box::new(|_| {}));
        let refused: Vec<_> =
            (0..QUEUE_LIMIT + 1).map(|_| push(Priority::Background, 1)).filter(Result::is_err).collect();
        assert_eq!(refused, [Err(Full)]);
        assert_eq!(push(Priority::Interactive, 1), Ok(()));
        assert_eq!(push(Priority::Background, 2), Ok(()));
    }

    #[test]
    fn a_job_in_work_shows() {
        let queue = Queue::default();
        queue.push(Priority::Interactive, None, Box::new(|_| {})).unwrap();
        assert_eq!(queue.busy_for(), None);
        assert!(queue.next().is_some());
        assert!(queue.busy_for().is_some());
    }
}
