//! Serving until told to stop.

use std::io;
use std::time::Duration;

use keyd_core::{Failure, Reason};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Service, StdError};
use tonic::service::Routes;
use tonic::transport::server::{Connected, Router};
use tower::Layer;

/// How long calls may still run once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// SIGTERM or SIGINT. Both are watched for from this call on.
///
/// # Errors
/// [`Reason::Internal`] when signals cannot be watched for.
pub fn told_to_stop() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let on = |kind| {
        signal(kind).map_err(|e| Failure::new(Reason::Internal, format!("cannot watch for signals: {e}")))
    };
    let (mut term, mut int) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    })
}

/// Runs a gRPC server until `stop` ends, then lets running calls end within five seconds.
///
/// # Errors
/// [`Reason::Internal`] when the server breaks off.
pub async fn serve<L, IO>(
    router: Router<L>,
    incoming: impl Stream<Item = io::Result<IO>> + Send,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Failure>
where
    L: Layer<Routes>,
    L::Service: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    <L::Service as Service<Request<Body>>>::Future: Send,
    <L::Service as Service<Request<Body>>>::Error: Into<StdError> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (told, mut stopped) = tokio::sync::watch::channel(false);
    let stop = async move {
        stop.await;
        told.send_replace(true);
    };
    let served = router.serve_with_incoming_shutdown(incoming, stop);
    let overdue = async {
        // An error means that the sender is gone, and then the server has ended by itself.
        let _ = stopped.wait_for(|s| *s).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = served => result.map_err(|e| Failure::new(Reason::Internal, format!("the server broke off: {e}"))),
        () = overdue => {
            tracing::warn!(seconds = DRAIN.as_secs(), "calls still ran when the time to stop was over");
            Ok(())
        }
    }
}
