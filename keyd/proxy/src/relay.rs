//! Bytes from one side to the other, both ways.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep_until};

/// Copies both ways until both sides have ended. The end of one side is passed on to the other, which may go on
/// sending. Gives the bytes from `a` to `b` and from `b` to `a`.
///
/// # Errors
/// Either side's, or [`io::ErrorKind::TimedOut`] after `idle` without a byte.
pub async fn relay<A, B>(a: A, mut b: B, idle: Duration) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Arc::new(Activity::start());
    // Whatever moves in either direction passes `a`.
    let mut a = Watched { stream: a, activity: Arc::clone(&activity) };
    tokio::select! {
        copied = copy_bidirectional(&mut a, &mut b) => copied,
        () = activity.ended(idle) => Err(io::Error::new(io::ErrorKind::TimedOut, "idle for too long")),
    }
}

/// When a byte last moved.
struct Activity {
    start: Instant,
    last: AtomicU64, // ms after start
}

impl Activity {
    fn start() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    fn note(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Waits until nothing moved for `idle`.
    async fn ended(&self, idle: Duration) {
        loop {
            let end = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + idle;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// A stream whose traffic is noted.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.activity.note();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() {
            self.activity.note();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_side_that_ended_may_still_be_answered() {
        let ((mut left, a), (mut right, b)) = (duplex(64), duplex(64));
        let relay = tokio::spawn(relay(a, b, IDLE));
        left.write_all(b"question").await.unwrap();
        left.shutdown().await.unwrap();
        let mut text = String::new();
        right.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        right.write_all(b"the answer").await.unwrap();
        right.shutdown().await.unwrap();
        text.clear();
        left.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "the answer");
        assert_eq!(relay.await.unwrap().unwrap(), (8, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn traffic_in_one_direction_keeps_it_open_and_silence_ends_it() {
        let ((_left, a), (mut right, b)) = (duplex(64), duplex(64));
        let mut relay = tokio::spawn(relay(a, b, IDLE));
        for _ in 0..4 {
            tokio::time::sleep(IDLE * 2 / 3).await;
            right.write_all(b"x").await.unwrap();
        }
        assert!(!relay.is_finished());
        let silent = Instant::now();
        let error = (&mut relay).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let waited = silent.elapsed();
        assert!(waited >= IDLE && waited < IDLE + Duration::from_secs(1), "{waited:?}");
    }
}
