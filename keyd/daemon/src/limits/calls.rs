//! A bound on the calls of one user that are at work, over all its connections. More wait for their turn, in order.

use std::sync::Arc;
use std::task::{Context, Poll};

use keyd_api::status;
use keyd_core::{BoxFuture, Failure, Reason};
use prometheus_client::metrics::counter::Counter;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::server::UdsConnectInfo;
use tower::{Layer, Service};

use super::Shares;

/// How many calls of one user may wait for their turn.
const WAITING: usize = 1024;

/// Makes calls take turns, before anything of their message is read.
#[derive(Clone)]
pub struct CallsPerUser {
    shares: Arc<Shares>,
}

impl CallsPerUser {
    /// At most `each` calls of one user at once; counts those that are refused.
    pub fn new(each: usize, refused: Counter) -> Self {
        Self { shares: Arc::new(Shares::new(each, refused)) }
    }
}

impl<S> Layer<S> for CallsPerUser {
    type Service = Turns<S>;

    fn layer(&self, inner: S) -> Turns<S> {
        Turns { shares: self.shares.clone(), inner }
    }
}

/// A service whose calls take turns.
#[derive(Clone)]
pub struct Turns<S> {
    shares: Arc<Shares>,
    inner: S,
}

impl<S> Service<Request<Body>> for Turns<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was polled is ready; its clone is for the next call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let Some(uid) = uid(&request) else { return Box::pin(inner.call(request)) };
        let share = self.shares.of(uid);
        // One is the map's, one is this call's.
        let others = Arc::strong_count(&share).saturating_sub(2);
        if others >= self.shares.each.saturating_add(WAITING) {
            self.shares.refused.inc();
            let refusal = too_many(uid, self.shares.each);
            return Box::pin(async move { Ok(status::from_failure(&refusal).into_http()) });
        }
        Box::pin(async move {
            // It is never closed.
            let _turn = share.acquire_owned().await;
            keyd_tpm::on_behalf_of(Some(uid), inner.call(request)).await
        })
    }
}

/// None where the kernel does not say; the policy then refuses.
fn uid(request: &Request<Body>) -> Option<u32> {
    request.extensions().get::<UdsConnectInfo>()?.peer_cred.map(|cred| cred.uid())
}

fn too_many(uid: u32, each: usize) -> Failure {
    Failure::new(
        Reason::LimitExceeded,
        format!(
            "user {uid} has {each} calls at work (limits.calls_per_user of keyd.toml) and {WAITING} waiting; try again later"
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::net::UnixStream;
    use tonic::transport::server::Connected;
    use tower::service_fn;

    use super::*;

    #[tokio::test]
    async fn whose_calls_fill_the_queue_is_refused_and_that_is_counted() {
        let refused = Counter::default();
        let endless = service_fn(|_| std::future::pending::<Result<Response<Body>, Infallible>>());
        let mut service = CallsPerUser::new(2, refused.clone()).layer(endless);
        let (stream, _other_end) = UnixStream::pair().unwrap();
        let mut call = || {
            let mut request = Request::new(Body::empty());
            request.extensions_mut().insert(stream.connect_info());
            service.call(request)
        };
        let mut waiting: Vec<_> = (0..2 + WAITING).map(|_| call()).collect();
        assert_eq!(refused.get(), 0);
        let refusal = call().await.unwrap();
        let status = tonic::Status::from_header_map(refusal.headers()).unwrap();
        assert_eq!(status.code(), status::code(Reason::LimitExceeded), "{status}");
        assert!(status.message().contains("limits.calls_per_user"), "{status}");
        assert_eq!(refused.get(), 1);
        waiting.pop();
        drop(call());
        assert_eq!(refused.get(), 1, "there is room again");
    }
}
