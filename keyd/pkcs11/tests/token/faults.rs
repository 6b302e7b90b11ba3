//! Modules that fail, in every call that a worker makes.

use std::sync::Arc;
use std::time::Duration;

use fault_shim::code::{
    CKR_CRYPTOKI_NOT_INITIALIZED, CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY, CKR_DEVICE_REMOVED,
    CKR_FUNCTION_FAILED, CKR_GENERAL_ERROR, CKR_HOST_MEMORY, CKR_KEY_HANDLE_INVALID,
    CKR_OBJECT_HANDLE_INVALID, CKR_OPERATION_ACTIVE, CKR_OPERATION_NOT_INITIALIZED, CKR_SESSION_CLOSED,
    CKR_SESSION_HANDLE_INVALID, CKR_TOKEN_NOT_PRESENT, CKR_USER_NOT_LOGGED_IN,
};
use fault_shim::{Action, Fault, Faults};
use keyd_core::{
    Algorithm, BoxFuture, Failure, Hash, Reason, RsaPadding, Sealer, SignInput, Vault, VaultKey,
};
use keyd_pkcs11::{ObjectKind, Token, TokenConfig};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{create, end_worker, kryoptic, secret, softhsm, token};

/// What each call of a worker is given in place of its answer.
pub const CODES: [u64; 15] = [
    CKR_CRYPTOKI_NOT_INITIALIZED,
    CKR_DEVICE_ERROR,
    CKR_DEVICE_MEMORY,
    CKR_DEVICE_REMOVED,
    CKR_FUNCTION_FAILED,
    CKR_GENERAL_ERROR,
    CKR_HOST_MEMORY,
    CKR_KEY_HANDLE_INVALID,
    CKR_OBJECT_HANDLE_INVALID,
    CKR_OPERATION_ACTIVE,
    CKR_OPERATION_NOT_INITIALIZED,
    CKR_SESSION_CLOSED,
    CKR_SESSION_HANDLE_INVALID,
    CKR_TOKEN_NOT_PRESENT,
    CKR_USER_NOT_LOGGED_IN,
];

/// Every function that a worker calls to serve, and a use of the token that needs it.
const FUNCTIONS: [(&str, Use); 34] = [
    ("C_GetInterface", Use::Sign),
    ("C_Initialize", Use::Sign),
    ("C_GetSlotList", Use::Sign),
    ("C_GetTokenInfo", Use::Sign),
    ("C_OpenSession", Use::Sign),
    ("C_GetSessionInfo", Use::Sign),
    ("C_Login", Use::Sign),
    ("C_FindObjectsInit", Use::Sign),
    ("C_FindObjects", Use::Sign),
    ("C_FindObjectsFinal", Use::Sign),
    ("C_SignInit", Use::Sign),
    ("C_Sign", Use::Sign),
    ("C_SignInit", Use::SignPkcs1),
    ("C_Sign", Use::SignPkcs1),
    ("C_SignInit", Use::SignPss),
    ("C_Sign", Use::SignPss),
    ("C_FindObjects", Use::Decapsulate),
    ("C_DecapsulateKey", Use::Decapsulate),
    ("C_GetAttributeValue", Use::Decapsulate),
    ("C_DestroyObject", Use::Decapsulate),
    ("C_GenerateKeyPair", Use::CreateMlKem),
    ("C_DecapsulateKey", Use::CreateMlKem),
    ("C_GenerateKeyPair", Use::Create),
    ("C_GetAttributeValue", Use::Create),
    ("C_FindObjects", Use::Delete),
    ("C_DestroyObject", Use::Delete),
    ("C_GenerateKey", Use::Seal),
    ("C_EncryptInit", Use::Seal),
    ("C_Encrypt", Use::Seal),
    ("C_DecryptInit", Use::Unseal),
    ("C_Decrypt", Use::Unseal),
    ("C_GetAttributeValue", Use::List),
    ("C_GetMechanismList", Use::Describe),
    ("C_GetMechanismInfo", Use::Describe),
];

/// A use of a token, and so of which token and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Sign,
    SignPkcs1,
    SignPss,
    Decapsulate,
    CreateMlKem,
    Create,
    Delete,
    Seal,
    Unseal,
    List,
    Describe,
}

/// How many functions are tried at once.
const AT_ONCE: usize = 4;
/// How soon a token serves again after a fault, and how long a call that fails may take.
const SOON: Duration = Duration::from_secs(5);
/// How long a call may take where one hangs.
const DEADLINE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_once_is_not_seen() {
    for_every_function(&CODES.map(Action::Return), |bench, function, action| {
        Box::pin(is_not_seen(bench, function, Fault::once(action)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_carried_out_and_said_to_have_failed_is_not_seen() {
    for_every_function(&CODES.map(Action::Return), |bench, function, action| {
        Box::pin(is_not_seen(bench, function, Fault::once(action).after()))
    })
    .await;
}

async fn is_not_seen(bench: &Bench, function: &str, fault: Fault) -> Result<(), String> {
    let token = bench.token_for(function).await;
    bench.inject(function, fault);
    match bench.make_use(&token).await {
        _ if bench.calls(function) == 0 => Err("it was not called".to_owned()),
        Err(failure) if does_not_open(function, fault.action, &failure) => Ok(()),
        Err(failure) if may_hide_a_wrong_pin(function, fault.action, &failure) => Ok(()),
        outcome => outcome.map_err(|failure| describe(&failure)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_always_is_told_and_made_again_when_the_fault_is_gone() {
    for_every_function(&CODES.map(Action::Return), |bench, function, action| {
        Box::pin(async move {
            let token = bench.token_for(function).await;
            bench.inject(function, Fault::always(action));
            let outcome = timeout(SOON, bench.make_use(&token)).await.map_err(|_| "it takes long")?;
            match outcome {
                // What fails is the next call of that session, if any: the search is still active.
                Ok(()) if function == "C_FindObjectsFinal" => return Ok(()),
                Ok(()) => return Err("nobody was told".to_owned()),
                Err(failure) if function == "C_FindObjectsFinal" && failure.reason == Reason::TokenFailed => {
                }
                Err(failure) if does_not_open(function, action, &failure) => {}
                Err(failure) if may_hide_a_wrong_pin(function, action, &failure) => {}
                Err(failure) if expected(action).contains(&failure.reason) && is_a_sentence(&failure) => {}
                Err(failure) => return Err(describe(&failure)),
            }
            bench.faults.lift(function).unwrap();
            serves_soon(bench, &token).await
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_once_in_any_call_is_not_seen() {
    for_every_function(&[Action::Abort, Action::Segfault], |bench, function, action| {
        Box::pin(async move {
            let token = bench.token_for(function).await;
            // The token has carried out what the one that crashes was asked for.
            let fault = Fault::once(action);
            bench.inject(function, if action == Action::Segfault { fault.after() } else { fault });
            let outcome = bench.make_use(&token).await;
            match bench.calls(function) {
                0 => Err("it was not called".to_owned()),
                _ => outcome.map_err(|failure| describe(&failure)),
            }
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_hangs_once_costs_a_deadline_and_is_made_again_by_another_worker() {
    for_every_function(&[Action::Hang], |bench, function, action| {
        Box::pin(async move {
            let token = bench.token_for(function).await;
            bench.inject(function, Fault::once(action));
            let start = Instant::now();
            match bench.make_use(&token).await {
                _ if bench.calls(function) == 0 => return Err("it was not called".to_owned()),
                Ok(()) => return Err("nobody was told".to_owned()),
                Err(failure) if failure.reason == Reason::DeadlineExceeded && is_a_sentence(&failure) => {}
                Err(failure) => return Err(describe(&failure)),
            }
            if start.elapsed() > DEADLINE * 2 {
                return Err(format!("it took {:?}", start.elapsed()));
            }
            serves_soon(bench, &token).await?;
            bench.remove_unacknowledged().await;
            Ok(())
        })
    })
    .await;
}

async fn serves_soon(bench: &Bench, token: &Token) -> Result<(), String> {
    let start = Instant::now();
    while let Err(failure) = bench.make_use(token).await {
        if start.elapsed() > SOON {
            return Err(format!("still, without the fault, {}", describe(&failure)));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The reasons that a caller may be given.
pub fn expected(action: Action) -> &'static [Reason] {
    match action {
        Action::Return(CKR_DEVICE_REMOVED | CKR_TOKEN_NOT_PRESENT) => &[Reason::TokenAbsent],
        Action::Return(CKR_DEVICE_ERROR | CKR_HOST_MEMORY | CKR_CRYPTOKI_NOT_INITIALIZED) => {
            &[Reason::TokenInterrupted, Reason::TokenAbsent]
        }
        // Absent where it comes from the calls that look for the token.
        _ => &[Reason::TokenFailed, Reason::TokenAbsent],
    }
}

/// These two say of a blob that it does not open, too.
fn does_not_open(function: &str, action: Action, failure: &Failure) -> bool {
    function == "C_Decrypt"
        && [CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED].map(Action::Return).contains(&action)
        && failure.reason == Reason::UnsealFailed
}

/// After codes that do not say whether the PIN was looked at, it is not presented again in the same call.
fn may_hide_a_wrong_pin(function: &str, action: Action, failure: &Failure) -> bool {
    let vague = [
        CKR_DEVICE_ERROR,
        CKR_DEVICE_MEMORY,
        CKR_FUNCTION_FAILED,
        CKR_GENERAL_ERROR,
        CKR_KEY_HANDLE_INVALID,
        CKR_OBJECT_HANDLE_INVALID,
    ];
    function == "C_Login"
        && vague.map(Action::Return).contains(&action)
        && failure.reason == Reason::TokenFailed
        && failure.message.contains("did not say whether the PIN is right")
}

pub fn is_a_sentence(failure: &Failure) -> bool {
    failure.message.contains("\"field-kit\"") && failure.message.len() > 40
}

pub fn describe(failure: &Failure) -> String {
    format!("{:?}: {failure}", failure.reason)
}

type Check = for<'a> fn(&'a Bench, &'static str, Action) -> BoxFuture<'a, Result<(), String>>;

/// Makes the check for each function and action. After each, the token must hold what it held before.
async fn for_every_function(actions: &[Action], check: Check) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for (function, what) in FUNCTIONS {
        let (turns, actions) = (turns.clone(), actions.to_vec());
        running.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let mut bench = Bench::new(what).await;
            let mut wrong = Vec::new();
            for action in actions {
                if function == "C_GenerateKey" {
                    // It is called once in the life of a token.
                    bench = Bench::new(what).await;
                }
                if action == Action::Hang {
                    bench.config.call_deadline = DEADLINE;
                }
                let checked = check(&bench, function, action).await;
                bench.faults.lift(function).unwrap();
                if let Err(why) = checked.and(bench.is_unchanged().await) {
                    wrong.push(format!("{function} in {what:?}, {action:x?}: {why}"));
                }
            }
            wrong
        });
    }
    let wrong = running.join_all().await.concat();
    let tried = FUNCTIONS.len() * actions.len();
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}

// === Bench ===

/// A token behind the shim, with a key in it.
pub struct Bench {
    pub dir: TempDir,
    /// What it is used for.
    what: Use,
    pub faults: Faults,
    /// Through the shim.
    pub config: TokenConfig,
    /// Without it.
    plain: Token,
    pub key: VaultKey,
}

const CONTEXT: &[u8] = b"spire-server/x509-CA-A";
/// What a use that makes a key calls it.
const NEW: &str = "n/new";

impl Bench {
    pub async fn new(what: Use) -> Self {
        let ((dir, config), algorithm) = match what {
            Use::SignPkcs1 | Use::SignPss => (softhsm(), Algorithm::Rsa2048),
            Use::Decapsulate | Use::CreateMlKem => (kryoptic(), Algorithm::MlKem768),
            _ => (softhsm(), Algorithm::EcP256),
        };
        let plain = token(&config);
        let key = create(&plain, algorithm).await;
        let faults = Faults::new(&dir.path().join("faults")).unwrap();
        let config = behind_the_shim(&faults, config);
        Self { dir, what, faults, config, plain, key }
    }

    /// With a worker of its own.
    pub fn token(&self) -> Token {
        token(&self.config)
    }

    /// As [`Bench::token`]. A fault of C_Login is to meet a PIN that was accepted before; with another, no second call may be
    /// made, which the tests of the PIN hold.
    async fn token_for(&self, function: &str) -> Token {
        let token = self.token();
        if function == "C_Login" {
            self.make_use(&token).await.unwrap();
            end_worker(&token).await;
        }
        token
    }

    pub fn inject(&self, function: &str, fault: Fault) {
        self.faults.inject(function, fault).unwrap();
    }

    pub fn calls(&self, function: &str) -> u64 {
        self.faults.calls(function).unwrap()
    }

    /// One call of `token`, whose outcome must be right where it has one.
    pub async fn make_use(&self, token: &Token) -> Result<(), Failure> {
        match self.what {
            Use::Sign => sign(token, &self.key, SignInput::Message(b"m")).await,
            Use::SignPkcs1 => sign(token, &self.key, padded(RsaPadding::Pkcs1v15)).await,
            Use::SignPss => sign(token, &self.key, padded(RsaPadding::Pss)).await,
            Use::Decapsulate => decapsulate(token, &self.key).await,
            Use::Create => {
                let made = token.create(&NEW.parse().unwrap(), Algorithm::EcP256).await?;
                sign(&self.plain, &made, SignInput::Message(b"m")).await?;
                self.plain.delete(&made.handle).await
            }
            Use::CreateMlKem => {
                let made = token.create(&NEW.parse().unwrap(), Algorithm::MlKem768).await?;
                decapsulate(&self.plain, &made).await?;
                self.plain.delete(&made.handle).await
            }
            Use::Delete => {
                let made = create(&self.plain, Algorithm::EcP256).await;
                let outcome = token.delete(&made.handle).await;
                match &outcome {
                    Ok(()) => assert_eq!(self.objects().await, 2),
                    Err(_) => self.plain.delete(&made.handle).await?,
                }
                outcome
            }
            Use::Seal => {
                let blob = token.seal(&secret("seed"), CONTEXT).await?;
                assert_eq!(self.plain.unseal(&blob, CONTEXT).await?.expose(), b"seed");
                Ok(())
            }
            Use::Unseal => {
                let blob = self.plain.seal(&secret("seed"), CONTEXT).await?;
                assert_eq!(token.unseal(&blob, CONTEXT).await?.expose(), b"seed");
                Ok(())
            }
            Use::List => {
                assert_eq!(token.list_objects().await?.len(), 2);
                Ok(())
            }
            Use::Describe => {
                assert!(token.supports(Algorithm::EcP384).await?);
                Ok(())
            }
        }
    }

    /// Whether the token holds the key alone, and the wrapping key at most.
    async fn is_unchanged(&self) -> Result<(), String> {
        match self.objects().await {
            2 => Ok(()),
            count => Err(format!("{count} objects are left")),
        }
    }

    /// Removes the keys that were made while their callers got no answer, as an operator would.
    async fn remove_unacknowledged(&self) {
        for object in self.plain.list_objects().await.unwrap() {
            if object.label == NEW {
                self.plain.delete(&object.id).await.unwrap();
            }
        }
    }

    pub async fn objects(&self) -> usize {
        let objects = self.plain.list_objects().await.unwrap();
        objects.iter().filter(|object| object.kind != ObjectKind::WrappingKey).count()
    }
}

async fn sign(token: &Token, key: &VaultKey, input: SignInput<'_>) -> Result<(), Failure> {
    let signature = token.sign(&key.handle, key.public_key.algorithm(), input).await?;
    key.public_key.verify(input, &signature).unwrap();
    Ok(())
}

async fn decapsulate(token: &Token, key: &VaultKey) -> Result<(), Failure> {
    let (ciphertext, sent) = key.public_key.encapsulate().unwrap();
    let opened = token.decapsulate(&key.handle, key.public_key.algorithm(), &ciphertext).await?;
    assert_eq!(opened.expose(), sent.expose());
    Ok(())
}

const fn padded(padding: RsaPadding) -> SignInput<'static> {
    SignInput::RsaDigest { padding, hash: Hash::Sha256, digest: &[7; 32] }
}

/// The token as `config` has it, with the shim between.
pub fn behind_the_shim(faults: &Faults, mut config: TokenConfig) -> TokenConfig {
    config.environment.extend(faults.environment(&config.module));
    config.module = fault_shim::module().unwrap();
    config
}
