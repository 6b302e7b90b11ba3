//! What a caller can repeat at will, such as calls that are denied: counted, so that it cannot fill the disk.

use std::collections::HashMap;
use std::time::Duration;

use keyd_audit::{Draft, Event};
use tokio::time::Instant;

/// How long repetitions are counted before they are recorded.
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Most different things counted at once. What comes beyond is counted by user and event alone.
const MOST: usize = 4096;

/// User, event and subject.
type Kind = (Option<u32>, &'static str, String);

/// What was repeated lately.
#[derive(Debug, Default)]
pub struct Repeated {
    windows: HashMap<Kind, Window>,
}

#[derive(Debug)]
struct Window {
    ends: Instant,
    /// The last one, and how many there were since the last record.
    counted: Option<(Draft, u64)>,
}

impl Repeated {
    /// Takes one in: it is given back when it is to be recorded now, and else counted.
    pub fn meet(&mut self, draft: Draft) -> Option<Draft> {
        let mut kind = (draft.origin.uid, draft.event.name(), subject(&draft.event));
        if self.windows.len() >= MOST && !self.windows.contains_key(&kind) {
            kind.2.clear();
        }
        if let Some(window) = self.windows.get_mut(&kind) {
            let before = window.counted.take().map_or(0, |(_, count)| count);
            window.counted = Some((draft, before.saturating_add(1)));
            return None;
        }
        self.windows.insert(kind, Window { ends: Instant::now() + WINDOW, counted: None });
        Some(draft)
    }

    /// What was counted in windows that have ended, or in all.
    pub fn due(&mut self, all: bool) -> Vec<Draft> {
        let now = Instant::now();
        let mut due = Vec::new();
        self.windows.retain(|_, window| {
            if window.ends > now && !all {
                return true;
            }
            window.ends = now + WINDOW;
            let Some((draft, count)) = window.counted.take() else { return false };
            due.push(Draft { event: draft.event.times(count), ..draft });
            true
        });
        due
    }
}

fn subject(event: &Event) -> String {
    match event {
        Event::Denied { operation, .. } => operation.name().to_owned(),
        other => other.key().map(ToString::to_string).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use keyd_audit::Origin;
    use keyd_core::{Operation, Reason};

    use super::*;

    fn denied(uid: u32, namespace: &str) -> Draft {
        let namespace = Some(namespace.parse().unwrap());
        let event = Event::Denied { operation: Operation::Sign, namespace, count: 1 };
        Draft::failed(Origin { uid: Some(uid), pid: None }, event, Reason::Denied)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_is_recorded_at_once_and_the_others_as_a_count() {
        let mut repeated = Repeated::default();
        assert!(repeated.meet(denied(1, "a")).is_some());
        assert!(repeated.meet(denied(2, "a")).is_some(), "another user");
        for number in 0..500 {
            assert!(repeated.meet(denied(1, &format!("n{number}"))).is_none());
        }
        assert!(repeated.due(false).is_empty());
        tokio::time::advance(WINDOW).await;
        let due = repeated.due(false);
        assert_eq!(due, [Draft { event: denied(1, "n499").event.times(500), ..denied(1, "n499") }]);
        assert!(repeated.meet(denied(1, "a")).is_none(), "who goes on is counted on");
        assert!(repeated.meet(denied(2, "a")).is_some(), "who stopped begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_counted_is_bounded() {
        let mut repeated = Repeated::default();
        let mut at_once = 0;
        for uid in 0..2 {
            for number in 0..2 * MOST {
                let key = format!("n/k{number}").parse().unwrap();
                let origin = Origin { uid: Some(uid), pid: None };
                let draft =
                    Draft::failed(origin, Event::UnsealFailed { key, count: 1 }, Reason::UnsealFailed);
                at_once += usize::from(repeated.meet(draft).is_some());
            }
        }
        assert_eq!(at_once, MOST + 2);
        assert_eq!(repeated.windows.len(), MOST + 2);
    }
}
