//! Many keys, one after the other, each told of as it is done.

use std::time::Duration;

use keyd_api::v1;
use keyd_core::{Failure, KeyId};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::keyring::Outcome;

/// How long a caller may take to hear of one key; one that does not listen has left.
const HEARING: Duration = Duration::from_secs(30);

/// What is said of each key.
pub type Told = ReceiverStream<Result<v1::KeyOutcome, Status>>;

/// Does `work` for one key after the other, until all are done or the caller has left. `done` is what a key that is done
/// is called.
pub fn each<K, W, F>(keys: Vec<(KeyId, K)>, done: &'static str, work: W) -> Told
where
    K: Send + 'static,
    W: Fn(KeyId, K) -> F + Send + 'static,
    F: Future<Output = Result<Outcome, Failure>> + Send,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let of = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        for ((id, key), number) in keys.into_iter().zip(1..) {
            let about = v1::KeyOutcome { key: id.to_string(), number, of, ..Default::default() };
            let told = describe(about, work(id, key).await, done);
            if !matches!(timeout(HEARING, sender.send(Ok(told))).await, Ok(Ok(()))) {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn describe(about: v1::KeyOutcome, result: Result<Outcome, Failure>, done: &str) -> v1::KeyOutcome {
    let (outcome, protection) = match result {
        Ok(Outcome::Done(protection)) => (done, protection.to_string()),
        Ok(Outcome::Current(protection)) => ("current", protection.to_string()),
        Ok(Outcome::Due) => ("due", String::new()),
        Err(failure) => {
            let (reason, message) = (failure.reason.name().to_owned(), failure.message);
            return v1::KeyOutcome { outcome: "failed".to_owned(), reason, message, ..about };
        }
    };
    v1::KeyOutcome { outcome: outcome.to_owned(), protection, ..about }
}
