//! The client of keyd-agent against a server of the same protocol that can go away, refuse and come back.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use keyd_api::Client;
use keyd_api::agent::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use keyd_api::agent::{AgentClient, AgentIdentity, v1};
use keyd_api::status::from_failure;
use keyd_core::{Algorithm, Failure, PublicKey, Reason};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Agent(watch::Receiver<Given>);

/// What the agent says at the moment.
type Given = Result<v1::Identity, Failure>;

#[tonic::async_trait]
impl IdentityService for Agent {
    type WatchIdentityStream = Pin<Box<dyn Stream<Item = Result<v1::Identity, Status>> + Send>>;

    async fn watch_identity(
        &self,
        _request: Request<v1::WatchIdentityRequest>,
    ) -> Result<Response<Self::WatchIdentityStream>, Status> {
        let stream = WatchStream::new(self.0.clone());
        Ok(Response::new(Box::pin(stream.map(|identity| identity.map_err(|f| from_failure(&f))))))
    }

    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let request = request.into_inner();
        if request.handle != "h" {
            return Err(from_failure(&Failure::new(Reason::KeyNotFound, "no such handle")));
        }
        Ok(Response::new(v1::SignResponse { signature: request.message }))
    }
}

/// A server on a runtime of its own, so that dropping it cuts every open connection as the end of a process does.
struct Serving(Option<Runtime>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

fn serve(socket: &Path, agent: Agent) -> Serving {
    let _ = std::fs::remove_file(socket);
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let entered = runtime.enter();
    let listener = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
    let server = tonic::transport::Server::builder().add_service(IdentityServiceServer::new(agent));
    drop(tokio::spawn(server.serve_with_incoming(listener)));
    drop(entered);
    Serving(Some(runtime))
}

fn identity(handle: &str) -> v1::Identity {
    let key = PublicKey::from_raw(Algorithm::MlDsa44, &[7; 1312]).unwrap();
    v1::Identity {
        spiffe_id: "spiffe://td/web".to_owned(),
        chain: vec![vec![1].into()],
        bundles: [("td".to_owned(), v1::Bundle { authorities: vec![vec![2].into()] })].into(),
        handle: handle.to_owned(),
        public_key: key.spki().to_vec().into(),
        not_after: 4_000_000_000,
    }
}

fn give(sender: &watch::Sender<Given>, given: Given) {
    sender.send_modify(|now| *now = given);
}

async fn until(
    seen: &mut watch::Receiver<Option<Arc<AgentIdentity>>>,
    wanted: impl FnMut(&Option<Arc<AgentIdentity>>) -> bool,
) {
    tokio::time::timeout(PATIENCE, seen.wait_for(wanted)).await.expect("in time").unwrap();
}

fn has(handle: &str) -> impl FnMut(&Option<Arc<AgentIdentity>>) -> bool {
    move |identity| identity.as_ref().is_some_and(|i| i.handle == handle)
}

#[tokio::test]
async fn the_identity_is_followed_over_rotation_and_a_restart_of_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let (sender, receiver) = watch::channel(Ok(identity("first")));
    // The agent starts later than its client.
    let mut seen = AgentClient::new(&socket).watch(None);
    assert!(seen.borrow().is_none());
    let serving = serve(&socket, Agent(receiver.clone()));
    until(&mut seen, has("first")).await;
    give(&sender, Ok(identity("second")));
    until(&mut seen, has("second")).await;
    drop(serving);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(has("second")(&seen.borrow()), "the last identity stays while the agent is gone");
    give(&sender, Ok(identity("third")));
    let _serving = serve(&socket, Agent(receiver));
    until(&mut seen, has("third")).await;
    let identity = seen.borrow().clone().unwrap();
    assert_eq!(identity.bundles["td"], [vec![2]]);
}

#[tokio::test]
async fn an_identity_that_the_agent_takes_away_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let (sender, receiver) = watch::channel(Ok(identity("first")));
    let _serving = serve(&socket, Agent(receiver));
    let mut seen = AgentClient::new(&socket).watch(None);
    until(&mut seen, has("first")).await;
    give(&sender, Err(Failure::new(Reason::Denied, "no entry names this caller")));
    until(&mut seen, Option::is_none).await;
    give(&sender, Ok(identity("second")));
    until(&mut seen, has("second")).await;
}

#[tokio::test]
async fn an_identity_that_makes_no_sense_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let (sender, receiver) = watch::channel(Ok(identity("first")));
    let _serving = serve(&socket, Agent(receiver));
    let mut seen = AgentClient::new(&socket).watch(None);
    until(&mut seen, has("first")).await;
    for broken in [
        v1::Identity { chain: Vec::new(), ..identity("x") },
        v1::Identity { public_key: vec![1, 2].into(), ..identity("x") },
        v1::Identity { not_after: -1, ..identity("x") },
        identity(""),
    ] {
        give(&sender, Ok(broken));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(has("first")(&seen.borrow()));
    }
}

#[tokio::test]
async fn signatures_and_refusals_come_back_as_given() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let client = AgentClient::new(&socket);
    let gone = client.sign("h", b"m").await.unwrap_err();
    assert_eq!(gone.reason, Reason::Unreachable);
    assert!(gone.message.contains("keyd-agent serve"), "{gone}");
    let (_sender, receiver) = watch::channel(Ok(identity("h")));
    let _serving = serve(&socket, Agent(receiver));
    assert_eq!(client.sign("h", b"m").await.unwrap(), b"m");
    assert_eq!(client.sign("other", b"m").await.unwrap_err().reason, Reason::KeyNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_connection_ends_could_not_reach_the_server_whenever_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        // Unread, as one connection too many is closed, and a moment after it.
        for pause in (0..).map(|n| Duration::from_micros(n % 400)) {
            let (connection, _) = listener.accept().await.unwrap();
            tokio::time::sleep(pause).await;
            drop(connection);
        }
    });
    for _ in 0..400 {
        let refused = Client::new(&socket).status().await.unwrap_err();
        assert_eq!(refused.reason, Reason::Unreachable, "{refused}");
    }

    let silent = UnixListener::bind(dir.path().join("t")).unwrap();
    let client = Client::new(dir.path().join("t")).with_deadline(Duration::from_millis(50));
    assert_eq!(client.status().await.unwrap_err().reason, Reason::DeadlineExceeded);
    drop(silent);
}
