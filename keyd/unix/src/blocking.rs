//! The async workers, and what blocks away from them.

use keyd_core::{Failure, Reason};

/// Runs what blocks (disk, devices, long computation) on a thread of its own.
///
/// # Errors
/// Those of the work; [`Reason::Internal`] where it panicked.
pub async fn off_worker<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Failure> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Failure::new(Reason::Internal, format!("work off the async workers broke off: {error}")).into())
    })
}

/// The runtime of a program, with a worker for each core.
///
/// # Errors
/// [`Reason::Internal`] when the system gives no threads.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Reason::Internal, format!("cannot start a runtime: {e}")))
}
