//! One operation on a key, counted.

use keyd_core::{Namespace, Operation, Protection, Reason};
use tokio::time::Instant;

use super::{Done, Failed, Kind, Metrics};

/// An operation under way. Where it is dropped before its end, its caller has left, as a rule at its deadline.
pub struct Call<'a> {
    metrics: &'a Metrics,
    operation: &'static str,
    namespace: String,
    start: Instant,
    ended: bool,
}

impl<'a> Call<'a> {
    pub(super) fn new(metrics: &'a Metrics, operation: Operation, namespace: &Namespace) -> Self {
        let (operation, namespace) = (operation.name(), namespace.to_string());
        Self { metrics, operation, namespace, start: Instant::now(), ended: false }
    }

    /// Counts how it went: done, by a key under this protection where that is known, or failed.
    pub fn end(mut self, outcome: Result<Option<Protection>, Reason>) {
        self.ended = true;
        let (operation, namespace) = (self.operation, std::mem::take(&mut self.namespace));
        match outcome {
            Ok(protection) => {
                self.metrics.done.get_or_create(&Done { operation, namespace }).inc();
                if let Some(protection) = protection {
                    let kind = Kind { operation, protection: protection.name() };
                    self.metrics.seconds.get_or_create(&kind).observe(self.start.elapsed().as_secs_f64());
                }
            }
            Err(reason) => self.failed(namespace, reason),
        }
    }

    fn failed(&self, namespace: String, reason: Reason) {
        let labels = Failed { operation: self.operation, namespace, reason: reason.name() };
        self.metrics.failed.get_or_create(&labels).inc();
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let namespace = std::mem::take(&mut self.namespace);
            self.failed(namespace, Reason::DeadlineExceeded);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Snapshot;
    use super::*;

    #[tokio::test]
    async fn each_call_is_counted_once_however_it_ends() {
        let metrics = Metrics::new();
        let namespace: Namespace = "n".parse().unwrap();
        let sign = || metrics.call(Operation::Sign, &namespace);
        sign().end(Ok(Some(Protection::TpmSealed)));
        sign().end(Err(Reason::TokenAbsent));
        drop(sign());
        metrics.call(Operation::Delete, &namespace).end(Ok(None));
        let text = metrics.text(&Snapshot::default()).unwrap();
        for line in [
            "keyd_operations_total{operation=\"sign\",namespace=\"n\"} 1",
            "keyd_operations_total{operation=\"delete\",namespace=\"n\"} 1",
            "keyd_failures_total{operation=\"sign\",namespace=\"n\",reason=\"TOKEN_ABSENT\"} 1",
            "keyd_failures_total{operation=\"sign\",namespace=\"n\",reason=\"DEADLINE_EXCEEDED\"} 1",
            "keyd_operation_duration_seconds_count{operation=\"sign\",protection=\"tpm-sealed\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("_count{operation=\"delete\""), "which protection it had is not known");
    }
}
