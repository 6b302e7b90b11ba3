//! The stream between SPIRE and one half of the plugin, as messages that come and go.

use std::time::Duration;

use plugin_sdk::Responses;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// One run of SPIRE's streaming call.
pub(crate) struct Conversation<I, O> {
    incoming: Streaming<I>,
    outgoing: mpsc::Sender<Result<O, Status>>,
}

impl<I, O> Conversation<I, O>
where
    I: Send + 'static,
    O: Send + 'static,
{
    /// Has `hold` hold the conversation in a task of its own, because SPIRE waits for the response stream before it
    /// goes on; its error ends the stream.
    pub(crate) fn begin<F>(
        incoming: Streaming<I>,
        hold: impl FnOnce(Self) -> F + Send + 'static,
    ) -> Responses<O>
    where
        F: Future<Output = Result<(), Status>> + Send,
    {
        let (outgoing, responses) = mpsc::channel(1);
        tokio::spawn(async move {
            let end = outgoing.clone();
            if let Err(status) = hold(Self { incoming, outgoing }).await {
                // SPIRE may be gone already; then nobody wants the error.
                let _ = end.send(Err(status)).await;
            }
        });
        Box::pin(ReceiverStream::new(responses))
    }

    /// The next message; SPIRE gives up when `within` has passed.
    pub(crate) async fn receive(&mut self, within: Duration) -> Result<I, Status> {
        match timeout(within, self.incoming.message()).await {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(Status::cancelled("SPIRE ended the attestation")),
            Ok(Err(status)) => Err(status),
            Err(_) => {
                Err(Status::deadline_exceeded("the other side of the attestation did not answer in time"))
            }
        }
    }

    pub(crate) async fn send(&self, message: O) -> Result<(), Status> {
        self.outgoing.send(Ok(message)).await.map_err(|_| Status::cancelled("SPIRE ended the attestation"))
    }
}
