//! Waiting out a restart of keyd within the time that SPIRE gives a call.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use keyd_api::{Client, is_transient};
use keyd_core::Failure;
use tokio::time::Instant;
use tonic::Request;

/// How long SPIRE waits for a plugin; the longest that any call is tried.
const SPIRE_WAITS: Duration = Duration::from_secs(30);

/// What is kept back of the caller's time, so that the answer still reaches it.
const RESERVE: Duration = Duration::from_millis(500);

/// Shortest and longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Until when a call may be tried.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The caller's own deadline (`grpc-timeout`), at most 30 s, less a little for the way back.
    pub fn of<T>(request: &Request<T>) -> Self {
        let timeout = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
        Self::after(timeout.and_then(grpc_timeout).unwrap_or(SPIRE_WAITS))
    }

    /// The same for a call that SPIRE gave `time`, counted from now.
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time.min(SPIRE_WAITS).saturating_sub(RESERVE))
    }

    /// Calls keyd, and again after a short pause for as long as the failure is one that may pass by itself and there
    /// is time. Each call gets the client with the time that is left as its deadline.
    ///
    /// # Errors
    /// The failure of the last call.
    pub async fn call<T, F>(self, keyd: &Client, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(PAUSE.0)
            .with_max_delay(PAUSE.1)
            .without_max_times();
        (|| call(keyd.clone().with_deadline(self.left())))
            .retry(pauses)
            .when(is_transient)
            .adjust(|_, pause| Some(pause?.min(self.room()?)))
            .notify(|failure, pause| tracing::warn!(%failure, pause_ms = pause.as_millis() as u64, "Trying again"))
            .await
    }

    /// How long a pause may be so that one more call has time; none where there is no time for one.
    fn room(self) -> Option<Duration> {
        self.left().checked_sub(PAUSE.0).filter(|room| !room.is_zero())
    }

    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Reads `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use keyd_core::Reason;

    use super::*;

    fn keyd() -> Client {
        Client::new("/nonexistent/keyd.sock")
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_by_itself_is_waited_out() {
        let start = Instant::now();
        let back = Deadline::after(SPIRE_WAITS)
            .call(&keyd(), |_| async move {
                match start.elapsed() < Duration::from_secs(12) {
                    true => Err(Failure::new(Reason::Unreachable, "restarting")),
                    false => Ok("signed"),
                }
            })
            .await;
        assert_eq!(back.unwrap(), "signed");
        assert!(start.elapsed() < Duration::from_secs(14), "found within two pauses");
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_is_given_up_before_the_caller_gives_up() {
        let start = Instant::now();
        let lost = Deadline::after(Duration::from_secs(5))
            .call(&keyd(), |_| async { Err::<(), _>(Failure::new(Reason::Unreachable, "gone")) })
            .await;
        assert_eq!(lost.unwrap_err().reason, Reason::Unreachable);
        assert!(start.elapsed() > Duration::from_secs(4), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_tried_again() {
        let calls = AtomicU32::new(0);
        let refused = Deadline::after(SPIRE_WAITS)
            .call(&keyd(), |_| async {
                calls.fetch_add(1, Ordering::Relaxed);
                Err::<(), _>(Failure::new(Reason::Denied, "no"))
            })
            .await;
        assert_eq!(refused.unwrap_err().reason, Reason::Denied);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn grpc_timeouts_are_read() {
        assert_eq!(grpc_timeout("29999m"), Some(Duration::from_millis(29_999)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "1", "123456789S", "-1S", "+1S", "1ü", "ü"] {
            assert_eq!(grpc_timeout(bad), None, "{bad:?}");
        }
    }
}
