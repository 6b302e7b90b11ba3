//! The agent's side of the identity API, holding its keys in this process.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use keyd_api::agent::v1;
use keyd_api::agent::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use keyd_api::status::from_failure;
use keyd_core::{Failure, Reason, Secret, SignInput};
use keyd_softkey::SoftKey;
use keyd_x509::{Certificate, parse_pem_chain};
use peers::openssl::Issued;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

type Given = Result<v1::Identity, Failure>;

/// An agent that can be told what to give, and be killed.
pub struct Agent {
    given: watch::Sender<Given>,
    keys: Keys,
    runtime: Option<Runtime>,
}

type Keys = Arc<Mutex<HashMap<String, SoftKey>>>;

impl Agent {
    /// Starts on `socket`, first with nothing to give.
    pub fn start(socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let (given, receiver) =
            watch::channel(Err(Failure::new(Reason::Denied, "no entry names this caller")));
        let keys = Keys::default();
        let service = Service { given: receiver, keys: Arc::clone(&keys) };
        // On a runtime of its own, so that dropping it cuts every connection as the end of a process does.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let listener = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let server = tonic::transport::Server::builder().add_service(IdentityServiceServer::new(service));
        drop(tokio::spawn(server.serve_with_incoming(listener)));
        drop(entered);
        Self { given, keys, runtime: Some(runtime) }
    }

    /// Gives the workload this identity, under the root of its trust domain.
    pub fn give(&self, spiffe_id: &str, issued: &Issued, root: &Issued) {
        let chain = certificates(issued);
        let leaf = chain.first().unwrap();
        let public_key = leaf.public_key().unwrap();
        let secret = Secret::new(issued.secret().unwrap());
        let handle = issued.certificate.display().to_string();
        let key = SoftKey::from_secret(public_key.algorithm(), &secret).unwrap();
        self.keys.lock().unwrap().insert(handle.clone(), key);
        let ends = leaf.not_after().duration_since(std::time::UNIX_EPOCH).unwrap();
        let authorities = certificates(root).iter().map(|c| c.der().to_vec().into()).collect();
        let domain = leaf.uri_id().unwrap().trust_domain().to_string();
        let identity = v1::Identity {
            spiffe_id: spiffe_id.to_owned(),
            chain: chain.iter().map(|c| c.der().to_vec().into()).collect(),
            bundles: [(domain, v1::Bundle { authorities })].into(),
            handle,
            public_key: public_key.spki().to_vec().into(),
            not_after: i64::try_from(ends.as_secs()).unwrap(),
        };
        self.given.send_modify(|given| *given = Ok(identity));
    }

    /// Takes the identity away.
    pub fn take(&self) {
        let denied = Failure::new(Reason::Denied, "no entry names this caller");
        self.given.send_modify(|given| *given = Err(denied));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

pub fn certificates(issued: &Issued) -> Vec<Certificate> {
    parse_pem_chain("test", &std::fs::read(&issued.certificate).unwrap()).unwrap()
}

struct Service {
    given: watch::Receiver<Given>,
    keys: Keys,
}

#[tonic::async_trait]
impl IdentityService for Service {
    type WatchIdentityStream = Pin<Box<dyn Stream<Item = Result<v1::Identity, Status>> + Send>>;

    async fn watch_identity(
        &self,
        _request: Request<v1::WatchIdentityRequest>,
    ) -> Result<Response<Self::WatchIdentityStream>, Status> {
        let stream = WatchStream::new(self.given.clone());
        Ok(Response::new(Box::pin(stream.map(|given| given.map_err(|f| from_failure(&f))))))
    }

    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let request = request.into_inner();
        let keys = self.keys.lock().unwrap();
        let key = keys.get(&request.handle).ok_or_else(|| Status::not_found("no such handle"))?;
        let signature = key.sign(SignInput::Message(&request.message)).map_err(|f| from_failure(&f))?;
        Ok(Response::new(v1::SignResponse { signature: signature.into() }))
    }
}
