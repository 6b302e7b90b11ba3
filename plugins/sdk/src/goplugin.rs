//! The three services of go-plugin: broker, controller, stdio.

use std::time::Duration;

use tokio::sync::watch;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use crate::Responses;
use crate::proto::goplugin::grpc_broker_server::GrpcBroker;
use crate::proto::goplugin::grpc_controller_server::GrpcController;
use crate::proto::goplugin::grpc_stdio_server::GrpcStdio;
use crate::proto::goplugin::{ConnInfo, Empty, StdioData};

/// Takes SPIRE's announcements of host services, none of which keyd's plugins call.
pub(crate) struct Broker;

#[tonic::async_trait]
impl GrpcBroker for Broker {
    type StartStreamStream = Responses<ConnInfo>;

    async fn start_stream(
        &self,
        request: Request<Streaming<ConnInfo>>,
    ) -> Result<Response<Self::StartStreamStream>, Status> {
        // Nothing is announced back; the stream ends when SPIRE ends its half.
        Ok(Response::new(Box::pin(request.into_inner().filter_map(|_| None))))
    }
}

/// Lets SPIRE end the plugin.
#[derive(Clone)]
pub(crate) struct Controller {
    shutdown: watch::Sender<bool>,
}

impl Controller {
    pub(crate) fn new() -> Self {
        Self { shutdown: watch::Sender::new(false) }
    }

    /// Waits until SPIRE says that the plugin should end.
    pub(crate) fn shut_down(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut shutdown = self.shutdown.subscribe();
        async move {
            // An error means that no controller is left to say so.
            let _ = shutdown.wait_for(|said| *said).await;
        }
    }

    /// Waits until that was `grace` ago.
    pub(crate) async fn overdue(&self, grace: Duration) {
        self.shut_down().await;
        tokio::time::sleep(grace).await;
    }
}

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.shutdown.send_replace(true);
        Ok(Response::new(Empty {}))
    }
}

/// Carries no output, because everything is logged on stderr; held open, because SPIRE expects that.
pub(crate) struct Stdio;

#[tonic::async_trait]
impl GrpcStdio for Stdio {
    type StreamStdioStream = Responses<StdioData>;

    async fn stream_stdio(&self, _: Request<()>) -> Result<Response<Self::StreamStdioStream>, Status> {
        Ok(Response::new(held_open([])))
    }
}

/// A response stream that gives these messages and then stays open until SPIRE closes it.
pub fn held_open<T: Send + 'static>(first: impl IntoIterator<Item = T>) -> Responses<T> {
    let first: Vec<_> = first.into_iter().map(Ok).collect();
    let open: Responses<T> = Box::pin(tokio_stream::pending());
    Box::pin(tokio_stream::iter(first).chain(open))
}
