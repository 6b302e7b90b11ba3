//! Reaching a gRPC server on a Unix socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::WINDOW;

/// Where keyd listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/keyd/keyd.sock";

/// How long a connect may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A channel to the server on this socket. It connects at the first call, and again after the server restarted.
pub fn unix_channel(socket: impl Into<PathBuf>) -> Channel {
    let socket = socket.into();
    // The authority is never looked up; HTTP/2 only wants one.
    let endpoint = Endpoint::from_static("http://keyd")
        .connect_timeout(CONNECT)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    }))
}
