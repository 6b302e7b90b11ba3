//! Streams that send what their caller may see, and again whenever that changes.

use std::pin::Pin;
use std::sync::Arc;

use keyd_api::status::from_failure;
use keyd_core::Failure;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use crate::entry::Entry;
use crate::serve::{Desk, view};
use crate::snapshot::Snapshot;
use crate::workload::Peer;

/// A stream of responses.
pub type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a stream is about.
pub trait View: Send + Sync + 'static {
    /// What the caller may see; compared, so that nothing is sent twice.
    type Seen: PartialEq + Send + Sync;
    /// What is sent.
    type Message: Send + 'static;

    /// What a caller that these entries mean may see; `None` for not yet.
    fn see(&self, snapshot: &Snapshot, entries: &[Arc<Entry>]) -> Result<Option<Self::Seen>, Failure>;

    /// How it is said.
    fn say(seen: &Self::Seen) -> Self::Message;
}

impl Desk {
    /// Sends what `view` sees, now and at every change, until the caller goes away or is refused.
    pub fn follow<V: View>(&self, peer: Peer, view: V) -> Response<Responses<V::Message>> {
        let (sender, receiver) = mpsc::channel(1);
        let desk = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                status = desk.send(peer, &view, &sender) => {
                    // The caller may be gone; then nobody wants it.
                    let _ = sender.send(Err(status)).await;
                }
            }
        });
        Response::new(Box::pin(ReceiverStream::new(receiver)))
    }

    async fn send<V: View>(
        mut self,
        peer: Peer,
        view: &V,
        sender: &mpsc::Sender<Result<V::Message, Status>>,
    ) -> Status {
        let mut last = None;
        loop {
            let snapshot = self.snapshot.borrow_and_update().clone();
            let entries = view::entries(&peer, &snapshot).await;
            match entries.and_then(|entries| view.see(&snapshot, &entries)) {
                Ok(Some(seen)) if last.as_ref() != Some(&seen) => {
                    if sender.send(Ok(V::say(&seen))).await.is_err() {
                        return Status::cancelled("the caller is gone");
                    }
                    last = Some(seen);
                }
                Ok(_) => {}
                Err(failure) => return from_failure(&failure),
            }
            if self.snapshot.changed().await.is_err() {
                return Status::unavailable("the agent stops");
            }
        }
    }
}
