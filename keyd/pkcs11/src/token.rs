//! A token as the rest of keyd uses it.

use std::time::Duration;

use keyd_core::{
    Algorithm, BoxFuture, Failure, Family, Health, HealthState, HeldKey, KeyId, PublicKey, Reason, Sealer,
    Secret, SignInput, Vault, VaultKey,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::config::{TokenConfig, WorkerCommand};
use crate::error::Error;
use crate::link::Lost;
use crate::supervisor::{Next, Supervisor};
use crate::wire::{self, Answer, Operation, Request};
use crate::{ecdsa, signing};

/// Length of the CKA_ID that a key is given, its handle, in bytes: random, so that two hosts that share a token never meet.
pub const HANDLE_LEN: usize = 16;
/// Longest secret that is sealed, in bytes.
const SECRET_LIMIT: usize = 64;
/// Longest context of a sealed secret, in bytes.
const CONTEXT_LIMIT: usize = 4096;
/// Longest blob taken, in bytes: a secret, and what AES-GCM adds.
const BLOB_LIMIT: usize = 256;
/// Most pages of a listing. Each has an object at least, and a thousand where the token reads them quickly.
const PAGES_LIMIT: usize = 16 * 1024;
/// How long [`Vault::health`] waits.
const HEALTH_PATIENCE: Duration = Duration::from_secs(2);

/// A PKCS#11 token behind a worker process.
///
/// It is a [`Vault`], whose handles are CKA_IDs of 16 bytes, and a [`Sealer`], which wraps under a token-resident
/// AES-256 key (AES-GCM, NIST SP 800-38D). The worker is started by the first call. Signatures are not verified
/// here; the crate's documentation says who must.
///
/// Every call fails with [`Reason::TokenAbsent`] while the module or token is missing, with
/// [`Reason::TokenLockedOut`] for good once the token has refused the PIN, and with [`Reason::DeadlineExceeded`]
/// where the token hangs.
pub struct Token {
    name: String,
    patience: Duration,
    supervisor: Supervisor,
    /// Held by the call that makes or destroys an object. Tokens seldom do two at once well: SoftHSM2 then fails one
    /// in a hundred.
    changes: tokio::sync::Mutex<()>,
}

/// A key object of keyd's in a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenObject {
    /// CKA_ID; for a key the handle of its [`VaultKey`].
    pub id: Vec<u8>,
    /// CKA_LABEL: the key id, or the name of the wrapping key.
    pub label: String,
    /// What it is.
    pub kind: ObjectKind,
    /// CKA_SENSITIVE.
    pub sensitive: bool,
    /// CKA_EXTRACTABLE.
    pub extractable: bool,
}

/// What a [`TokenObject`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// The private half of a key.
    PrivateKey,
    /// The public half of a key.
    PublicKey,
    /// The AES key that wraps secrets.
    WrappingKey,
}

/// What becomes of a call whose worker died.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It is made once more, of the next worker.
    Once,
    /// It may have changed the token, so it fails.
    Never,
}

impl Token {
    /// A token that is used as `config` says, in workers that `worker` starts. Nothing is started yet.
    ///
    /// # Errors
    /// [`Reason::BadConfig`] for sessions or deadline out of bounds.
    pub fn new(config: TokenConfig, worker: WorkerCommand) -> Result<Self, Failure> {
        config.check()?;
        Ok(Self {
            name: config.describe(),
            patience: config.call_deadline,
            supervisor: Supervisor::new(config, worker),
            changes: tokio::sync::Mutex::default(),
        })
    }

    /// The key objects that bear a label of keyd's, to be compared with keyd's own records.
    ///
    /// # Errors
    /// The token could not be asked.
    pub async fn list_objects(&self) -> Result<Vec<TokenObject>, Failure> {
        let mut objects = Vec::new();
        for class in [wire::Class::Private, wire::Class::Public, wire::Class::Wrapping] {
            objects.extend(self.list_class(class).await?);
        }
        Ok(objects)
    }

    /// Page by page, each in its own time.
    async fn list_class(&self, class: wire::Class) -> Result<Vec<TokenObject>, Failure> {
        let mut objects = Vec::new();
        let mut list = wire::List { class: class.into(), after: None };
        for _ in 0..PAGES_LIMIT {
            let answer = self.call(Operation::List(list.clone()), Repeat::Once).await?;
            let Answer::Objects(page) = answer else { return Err(self.misunderstood()) };
            if page.anew {
                objects.clear();
            }
            objects.extend(page.objects);
            list.after = page.next;
            if page.next.is_none() {
                return objects.into_iter().map(|object| self.object(object)).collect();
            }
        }
        Err(self.failure(Error::Protocol { what: "a listing without an end".to_owned() }))
    }

    /// Process id of the worker, while there is one.
    pub fn worker_pid(&self) -> Option<u32> {
        self.supervisor.pid()
    }

    /// How many workers were started; each but the first took the place of one that had ended.
    pub fn worker_starts(&self) -> u64 {
        self.supervisor.starts()
    }

    async fn describe(&self) -> Result<wire::Description, Failure> {
        match self.call(Operation::Describe(()), Repeat::Once).await? {
            Answer::Description(description) => Ok(description),
            _ => Err(self.misunderstood()),
        }
    }

    async fn bytes(&self, operation: Operation) -> Result<Vec<u8>, Failure> {
        self.expect_bytes(self.call(operation, Repeat::Once).await?)
    }

    fn expect_bytes(&self, answer: Answer) -> Result<Vec<u8>, Failure> {
        match answer {
            Answer::Bytes(bytes) => Ok(bytes),
            _ => Err(self.misunderstood()),
        }
    }

    async fn opened(&self, operation: Operation) -> Result<Secret, Failure> {
        match self.call(operation, Repeat::Once).await? {
            Answer::Opened(mut opened) => Ok(Secret::new(std::mem::take(&mut opened.secret))),
            _ => Err(self.misunderstood()),
        }
    }

    /// Makes a key under a CKA_ID that is given with it. One more try, with another, is made where a new worker can
    /// serve it; nothing may remain of the first.
    async fn make(&self, label: String, algorithm: Algorithm) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let deadline = Instant::now() + self.patience;
        let mut create = wire::Create { label, algorithm: algorithm.name().to_owned(), ..Default::default() };
        loop {
            create.key = vec![0; HANDLE_LEN];
            keyd_core::crypto::fill(&mut create.key)?;
            match self.call_until(deadline, Operation::Create(create.clone()), Repeat::Never).await {
                Err(failure) if create.remains.is_empty() && may_pass(&failure) => {
                    create.remains = std::mem::take(&mut create.key);
                }
                answer => return Ok((create.key, self.expect_bytes(answer?)?)),
            }
        }
    }

    async fn call(&self, operation: Operation, repeat: Repeat) -> Result<Answer, Failure> {
        self.call_until(Instant::now() + self.patience, operation, repeat).await
    }

    async fn call_until(
        &self,
        deadline: Instant,
        operation: Operation,
        repeat: Repeat,
    ) -> Result<Answer, Failure> {
        let exchange = async {
            let _alone = match operation {
                // A secret that is sealed first may have the wrapping key made.
                Operation::Create(_) | Operation::Delete(_) | Operation::Seal(_) => {
                    Some(self.changes.lock().await)
                }
                _ => None,
            };
            self.exchange(operation, repeat, deadline).await
        };
        match timeout_at(deadline, exchange).await {
            Ok(Ok(Answer::Failed(failed))) => Err(Failure::from(&failed)),
            Ok(other) => other,
            Err(_) => Err(self.no_answer(self.patience)),
        }
    }

    async fn exchange(
        &self,
        operation: Operation,
        repeat: Repeat,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let request = Request { operation: Some(operation) };
        let mut again = repeat == Repeat::Once;
        loop {
            let link = match self.supervisor.link().await? {
                Next::Ready(link) => link,
                Next::Ending(link) => {
                    link.over().await;
                    continue;
                }
                Next::Wait(until) => {
                    sleep_until(until).await;
                    continue;
                }
            };
            match link.call(&request, deadline).await {
                Err(Lost::InFlight) if again => again = false,
                // The worker ends by itself, and what it could not do the next one may.
                Ok(Answer::Failed(failed)) if again && failed.retire && may_pass(&Failure::from(&failed)) => {
                    again = false;
                }
                Ok(answer) => return Ok(answer),
                Err(Lost::BeforeSending) => {}
                Err(Lost::InFlight) => return Err(self.failure(worker_died(&request))),
                Err(Lost::Unsendable(error)) => {
                    return Err(self.failure(Error::Protocol { what: error.to_string() }));
                }
            }
        }
    }

    fn object(&self, object: wire::Object) -> Result<TokenObject, Failure> {
        let kind = match object.class() {
            wire::Class::Private => ObjectKind::PrivateKey,
            wire::Class::Public => ObjectKind::PublicKey,
            wire::Class::Wrapping => ObjectKind::WrappingKey,
            wire::Class::Unspecified => return Err(self.misunderstood()),
        };
        let wire::Object { id, label, sensitive, extractable, .. } = object;
        Ok(TokenObject { id, label, kind, sensitive, extractable })
    }

    async fn check_health(&self) -> Health {
        let asked = timeout_at(Instant::now() + HEALTH_PATIENCE, self.describe()).await;
        let asked = asked.unwrap_or_else(|_| Err(self.no_answer(HEALTH_PATIENCE)));
        match asked {
            Ok(wire::Description { product, algorithms, wraps }) => Health {
                device: format!("{} ({product})", self.name),
                state: HealthState::Ok,
                detail: format!(
                    "makes {}; {}",
                    if algorithms.is_empty() { "no keys".to_owned() } else { algorithms.join(", ") },
                    if wraps { "wraps with AES-GCM" } else { "cannot wrap" }
                ),
            },
            Err(failure) => Health {
                device: self.name.clone(),
                state: match failure.reason {
                    Reason::TokenLockedOut => HealthState::LockedOut,
                    _ => HealthState::Absent,
                },
                detail: failure.message,
            },
        }
    }

    /// For a call that took too long, of which whoever holds the PIN may have kept the time.
    fn no_answer(&self, after: Duration) -> Failure {
        self.failure(match self.supervisor.awaits_pin() {
            true => Error::NoPin { after },
            false => Error::NoAnswer { after },
        })
    }

    fn refuse(&self, message: String) -> Failure {
        self.failure(Error::BadRequest { message })
    }

    fn misunderstood(&self) -> Failure {
        self.failure(Error::Protocol { what: "an answer of another kind".to_owned() })
    }

    fn failure(&self, error: Error) -> Failure {
        error.into_failure(&self.name)
    }

    fn check_handle(&self, handle: &[u8]) -> Result<(), Failure> {
        if handle.len() == HANDLE_LEN {
            return Ok(());
        }
        Err(self.refuse(format!("a handle has {HANDLE_LEN} bytes, this one {}", handle.len())))
    }
}

/// Whether a new worker may do what one could not.
fn may_pass(failure: &Failure) -> bool {
    matches!(failure.reason, Reason::TokenInterrupted | Reason::TokenAbsent)
}

fn worker_died(request: &Request) -> Error {
    let left = match &request.operation {
        Some(Operation::Create(create)) => format!(
            "; the token may hold a key with CKA_ID {} that nobody uses. `keyd doctor` lists it",
            hex::encode(&create.key)
        ),
        _ => " and so did its successor".to_owned(),
    };
    Error::WorkerDied { left }
}

// === impl Vault ===

impl Vault for Token {
    fn supports(&self, algorithm: Algorithm) -> BoxFuture<'_, Result<bool, Failure>> {
        Box::pin(
            async move { Ok(self.describe().await?.algorithms.iter().any(|name| name == algorithm.name())) },
        )
    }

    fn create<'a>(&'a self, id: &'a KeyId, algorithm: Algorithm) -> BoxFuture<'a, Result<VaultKey, Failure>> {
        Box::pin(async move {
            let (handle, raw) = self.make(id.to_string(), algorithm).await?;
            Ok(VaultKey { handle, public_key: PublicKey::from_raw(algorithm, &raw)? })
        })
    }

    fn sign<'a>(
        &'a self,
        handle: &'a [u8],
        algorithm: Algorithm,
        input: SignInput<'a>,
    ) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(async move {
            self.check_handle(handle)?;
            let (data, pss) = signing::data(algorithm, input).map_err(|error| self.failure(error))?;
            let algorithm_name = algorithm.name().to_owned();
            let sign = wire::Sign { key: handle.to_vec(), algorithm: algorithm_name, data, pss: pss.into() };
            let signature = self.bytes(Operation::Sign(sign)).await?;
            if algorithm.family() != Family::Ec {
                return Ok(signature);
            }
            ecdsa::signature_to_der(algorithm, &signature)
                .ok_or_else(|| self.failure(Error::Malformed { what: "the signature" }))
        })
    }

    fn decapsulate<'a>(
        &'a self,
        handle: &'a [u8],
        algorithm: Algorithm,
        ciphertext: &'a [u8],
    ) -> BoxFuture<'a, Result<Secret, Failure>> {
        Box::pin(async move {
            self.check_handle(handle)?;
            algorithm.check_ciphertext(ciphertext).map_err(|failure| self.refuse(failure.message))?;
            let call = wire::Decapsulate {
                key: handle.to_vec(),
                algorithm: algorithm.name().to_owned(),
                ciphertext: ciphertext.to_vec(),
            };
            self.opened(Operation::Decapsulate(call)).await
        })
    }

    fn private_keys(&self) -> BoxFuture<'_, Result<Vec<HeldKey>, Failure>> {
        Box::pin(async {
            let private = self.list_class(wire::Class::Private).await?;
            Ok(private.into_iter().map(|key| HeldKey { handle: key.id, label: key.label }).collect())
        })
    }

    fn delete<'a>(&'a self, handle: &'a [u8]) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            self.check_handle(handle)?;
            match self.call(Operation::Delete(handle.to_vec()), Repeat::Once).await? {
                Answer::Done(()) => Ok(()),
                _ => Err(self.misunderstood()),
            }
        })
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(self.check_health())
    }
}

// === impl Sealer ===

impl Sealer for Token {
    fn seal<'a>(&'a self, secret: &'a Secret, context: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(async move {
            if secret.len() > SECRET_LIMIT || context.len() > CONTEXT_LIMIT {
                return Err(self.refuse(format!(
                    "a secret has at most {SECRET_LIMIT} bytes and its context {CONTEXT_LIMIT}; these have {} and {}",
                    secret.len(),
                    context.len()
                )));
            }
            let seal = wire::Seal { secret: secret.expose().to_vec(), context: context.to_vec() };
            self.bytes(Operation::Seal(seal)).await
        })
    }

    fn unseal<'a>(&'a self, blob: &'a [u8], context: &'a [u8]) -> BoxFuture<'a, Result<Secret, Failure>> {
        Box::pin(async move {
            if blob.len() > BLOB_LIMIT || context.len() > CONTEXT_LIMIT {
                return Err(self.failure(Error::DidNotOpen { source: None }));
            }
            let unseal = wire::Unseal { blob: blob.to_vec(), context: context.to_vec() };
            self.opened(Operation::Unseal(unseal)).await
        })
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(self.check_health())
    }
}
