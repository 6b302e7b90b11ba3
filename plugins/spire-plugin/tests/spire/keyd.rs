//! A key service with keys in memory, which can be taken away and brought back while SPIRE runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use keyd_api::status::from_failure;
use keyd_api::v1::key_service_server::{KeyService, KeyServiceServer};
use keyd_api::v1::{self, sign_request::Input};
use keyd_core::{Algorithm, Failure, Hash, KeyId, PublicKey, Reason, SignInput};
use keyd_softkey::SoftKey;
use keyd_x509::{Signer, TrustDomain, Validity, self_signed_root, to_pem};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

type Keys = Arc<Mutex<BTreeMap<String, (u32, Arc<SoftKey>)>>>;

pub struct Keyd {
    keys: Keys,
    socket: PathBuf,
    /// A runtime of its own, so that its connections end with it.
    server: Option<Runtime>,
}

impl Keyd {
    pub fn start(dir: &Path) -> Self {
        let mut keyd = Self { keys: Keys::default(), socket: dir.join("keyd.sock"), server: None };
        keyd.come_back();
        keyd
    }

    pub fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// Every connection breaks, and new ones are refused.
    pub fn go_away(&mut self) {
        std::fs::remove_file(&self.socket).unwrap();
        self.server.take().unwrap().shutdown_background();
    }

    pub fn come_back(&mut self) {
        let service = KeyServiceServer::new(Service(Arc::clone(&self.keys)));
        let listener = std::os::unix::net::UnixListener::bind(&self.socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime = Runtime::new().unwrap();
        runtime.spawn(async move {
            let incoming = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        self.server = Some(runtime);
    }

    /// The keys of a namespace and their algorithms.
    pub fn algorithms(&self, namespace: &str) -> BTreeMap<String, Algorithm> {
        let keys = self.keys.lock().unwrap();
        let of = |id: &String| id.strip_prefix(&format!("{namespace}/")).map(str::to_owned);
        keys.iter().filter_map(|(id, (_, key))| Some((of(id)?, key.public_key().algorithm()))).collect()
    }

    /// Makes a root's key and its certificate of ten days; the file that holds it.
    pub async fn root(&self, trust_domain: &str, dir: &Path) -> PathBuf {
        let key = Arc::new(generate(Algorithm::MlDsa87).unwrap());
        self.keys.lock().unwrap().insert("spire-root/root".to_owned(), (1, Arc::clone(&key)));
        let trust_domain: TrustDomain = trust_domain.parse().unwrap();
        let validity = Validity::starting(SystemTime::now(), Duration::from_secs(10 * 86_400));
        let root = self_signed_root(&Software(key), &trust_domain, validity).await.unwrap();
        let file = dir.join("root.pem");
        std::fs::write(&file, to_pem([&root]).unwrap()).unwrap();
        file
    }
}

pub fn generate(algorithm: Algorithm) -> Result<SoftKey, Failure> {
    SoftKey::from_secret(algorithm, &SoftKey::generate_secret(algorithm)?)
}

impl Drop for Keyd {
    fn drop(&mut self) {
        // A runtime must not be dropped, and so waited for, in a test that runs on another.
        self.server.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// A key in this process, for roots and certificate requests.
pub struct Software(pub Arc<SoftKey>);

impl Signer for Software {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.0.sign(SignInput::Message(message))
    }
}

struct Service(Keys);

impl Service {
    fn find(&self, id: &str) -> Result<(u32, Arc<SoftKey>), Failure> {
        let id: KeyId = id.parse()?;
        let found = self.0.lock().unwrap().get(&id.to_string()).cloned();
        found.ok_or_else(|| Failure::new(Reason::KeyNotFound, format!("no key {id}")))
    }

    fn put(&self, id: &str, version: u32, algorithm: Algorithm) -> Result<v1::KeyInfo, Failure> {
        let key = Arc::new(generate(algorithm)?);
        self.0.lock().unwrap().insert(id.to_owned(), (version, Arc::clone(&key)));
        Ok(info(id, version, &key))
    }
}

fn info(id: &str, version: u32, key: &SoftKey) -> v1::KeyInfo {
    v1::KeyInfo {
        key: id.to_owned(),
        algorithm: key.public_key().algorithm().to_string(),
        protection: "software".to_owned(),
        version,
        created_at: 0,
        state: "active".to_owned(),
        public_key: key.public_key().spki().to_vec().into(),
    }
}

fn reply<T>(result: Result<T, Failure>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|f| from_failure(&f))
}

#[tonic::async_trait]
impl KeyService for Service {
    async fn create_key(&self, r: Request<v1::CreateKeyRequest>) -> Result<Response<v1::KeyInfo>, Status> {
        let r = r.into_inner();
        reply(match self.find(&r.key) {
            Ok(_) => Err(Failure::new(Reason::KeyExists, "exists")),
            Err(_) => r.algorithm.parse().and_then(|algorithm| self.put(&r.key, 1, algorithm)),
        })
    }

    async fn list_keys(
        &self,
        r: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let prefix = format!("{}/", r.into_inner().namespace);
        let keys = self.0.lock().unwrap();
        let ours = keys.iter().filter(|(id, _)| id.starts_with(&prefix));
        let keys = ours.map(|(id, (version, key))| info(id, *version, key)).collect();
        Ok(Response::new(v1::ListKeysResponse { keys }))
    }

    async fn show_key(&self, r: Request<v1::ShowKeyRequest>) -> Result<Response<v1::KeyInfo>, Status> {
        let id = r.into_inner().key;
        reply(self.find(&id).map(|(version, key)| info(&id, version, &key)))
    }

    async fn sign(&self, r: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let r = r.into_inner();
        let (_, key) = self.find(&r.key).map_err(|f| from_failure(&f))?;
        let signature = match &r.input {
            Some(Input::Message(message)) => key.sign(SignInput::Message(message)),
            Some(Input::Digest(digest)) => {
                let hash = match digest.hash() {
                    v1::Hash::Sha384 => Hash::Sha384,
                    v1::Hash::Sha512 => Hash::Sha512,
                    _ => Hash::Sha256,
                };
                key.sign(SignInput::Digest { hash, digest: &digest.value })
            }
            None => Err(Failure::new(Reason::BadRequest, "no input")),
        };
        let fingerprint = key.public_key().fingerprint().to_vec().into();
        reply(signature.map(|s| v1::SignResponse { signature: s.into(), fingerprint }))
    }

    async fn rotate_key(&self, r: Request<v1::RotateKeyRequest>) -> Result<Response<v1::KeyInfo>, Status> {
        let r = r.into_inner();
        reply(self.find(&r.key).and_then(|(version, _)| self.put(&r.key, version + 1, r.algorithm.parse()?)))
    }

    async fn delete_key(
        &self,
        _: Request<v1::DeleteKeyRequest>,
    ) -> Result<Response<v1::DeleteKeyResponse>, Status> {
        Err(Status::unimplemented("SPIRE deletes no keys"))
    }
}
