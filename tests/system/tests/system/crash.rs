//! keyd is killed again and again under load, and its token's worker now and then beside, and nothing that was acknowledged
//! is lost.
//!
//! `KEYD_CRASH_KILLS` sets how often, `KEYD_CRASH_SEED` repeats the choices of an earlier run (`make torture N= SEED=`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use keyd_api::{Client, KeyInfo};
use keyd_core::{Algorithm, Failure, KeyId, Protection, Reason, SignInput};
use nix::sys::signal::{Signal, kill};
use peers::swtpm::Swtpm;
use peers::token::Token;
use system::keyd::{Keyd, namespaces, token_with_pin};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use Algorithm::{EcP256, EcP384, MlDsa44, MlDsa65, MlDsa87};
use Protection::{Hsm, HsmWrapped, Software, TpmSealed};

/// Kills of keyd in all, over the two tokens that every machine has.
const KILLS: u64 = 200;
/// Clients of each namespace.
const CLIENTS: usize = 2;
/// Keys that a client has at most.
const KEYS: usize = 4;
/// Shortest and longest life of keyd under load, in ms.
const LIFE: std::ops::Range<u64> = 20..600;
/// How often a worker is killed for each life of keyd, at most.
const WORKER_KILLS: u64 = 2;

/// A namespace, and what a key of each algorithm is protected by in it.
type Namespace = (&'static str, &'static [Protection], &'static [(Algorithm, Protection)]);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_keyd_is_killed_on_a_token_with_ml_dsa() {
    let dir = tempfile::tempdir().unwrap();
    killed_again_and_again(&dir, Token::kryoptic(dir.path()).unwrap(), ML_DSA, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_keyd_is_killed_on_a_token_that_wraps() {
    let dir = tempfile::tempdir().unwrap();
    let wrapped: Namespace =
        ("hsm", &[Hsm, HsmWrapped], &[(MlDsa65, HsmWrapped), (MlDsa87, HsmWrapped), (EcP256, Hsm)]);
    killed_again_and_again(&dir, Token::softhsm(dir.path()).unwrap(), wrapped, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_keyd_is_killed_on_nss() {
    let dir = tempfile::tempdir().unwrap();
    let Some(token) = Token::nss(dir.path()).unwrap() else { return };
    killed_again_and_again(&dir, token, ML_DSA, 10).await;
}

const ML_DSA: Namespace = ("hsm", &[Hsm], &[(MlDsa44, Hsm), (MlDsa65, Hsm), (EcP256, Hsm)]);

/// `share` is the part of all kills that falls to this token.
async fn killed_again_and_again(dir: &TempDir, token: Token, hsm: Namespace, share: u64) {
    let sealed: Namespace = ("sealed", &[TpmSealed], &[(MlDsa65, TpmSealed), (EcP256, TpmSealed)]);
    let soft: Namespace = ("soft", &[Software], &[(MlDsa44, Software), (EcP384, Software)]);
    let setting = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = setting("KEYD_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = setting("KEYD_CRASH_KILLS").unwrap_or(KILLS).div_ceil(share);
    println!("KEYD_CRASH_SEED={seed}");
    let mut rng = Rng::with_seed(seed);

    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    let kinds = [hsm, sealed, soft];
    let config = token_with_pin(&token, dir.path()).unwrap()
        + &format!("[tpm]\ntcti = {:?}\n", tpm.tcti())
        + &namespaces(&kinds.map(|(name, protections, _)| (name, protections)));
    let mut keyd = Keyd::start(dir.path(), &config).await.unwrap();

    let mut clients: Vec<_> = kinds
        .iter()
        .flat_map(|kind| (0..CLIENTS).map(move |number| (kind, number)))
        .map(|((namespace, _, kinds), number)| Load {
            keyd: keyd.client(),
            name: format!("{namespace}/client{number}"),
            kinds,
            rng: Rng::with_seed(rng.u64(..)),
            keys: BTreeMap::new(),
            done: [0; 4],
            unsure: 0,
        })
        .collect();
    let mut worker_kills = 0;
    for _ in 0..kills {
        let killed = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        for client in clients.drain(..) {
            running.spawn(client.until(killed.clone()));
        }
        worker_kills += live(&keyd, &mut rng).await;
        killed.store(true, Ordering::SeqCst);
        keyd.kill().await.unwrap();
        clients = running.join_all().await;

        keyd = Keyd::restart(dir.path()).await.unwrap();
        let listed = keyd.client().list_keys(None).await.unwrap();
        let mut checking = JoinSet::new();
        for client in clients.drain(..) {
            checking.spawn(client.check(listed.clone()));
        }
        clients = checking.join_all().await;
        let known: usize = clients.iter().map(|c| c.keys.len()).sum();
        assert_eq!(listed.len(), known, "every key that is listed is some client's");
        let log = keyd.json(&["audit", "verify"]).await.unwrap();
        assert_eq!(log["first"], 1, "{log}");
    }
    let doctor = keyd.output(&["--json", "doctor"]).await.unwrap();
    let found: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let orphans = found["findings"].as_array().unwrap();
    for finding in orphans {
        assert_eq!(finding["problem"], "no key of this keyd uses it", "{finding}");
        assert!(finding["subject"].as_str().unwrap().contains("(hsm/client"), "{finding}");
    }
    let interrupted: usize = clients.iter().filter(|c| c.name.starts_with("hsm/")).map(|c| c.unsure).sum();
    assert!(orphans.len() <= interrupted, "{} orphans of {interrupted} changes", orphans.len());
    let recorded = keyd.json(&["audit", "show"]).await.unwrap();
    let recorded = |event: &str| {
        let records = recorded["records"].as_array().unwrap().iter();
        records.filter(|r| r["event"] == event && r["result"] == "ok" && r["uid"].is_u64()).count()
    };
    for (kind, event) in ["key-created", "key-rotated", "key-deleted"].into_iter().enumerate() {
        let acknowledged: u32 = clients.iter().map(|c| c.done[kind]).sum();
        println!("{event}: {acknowledged} acknowledged, {} in the audit log", recorded(event));
        assert!(recorded(event) >= acknowledged as usize, "{event}");
    }
    keyd.stop().await.unwrap();

    println!(
        "{kills} kills of keyd, {worker_kills} of workers, {} orphans of {interrupted} changes",
        orphans.len()
    );
    for client in &clients {
        println!("{}: created, rotated, deleted, signed {:?}", client.name, client.done);
        assert!(client.done.iter().sum::<u32>() > 0, "{} got nothing done", client.name);
    }
    assert!(clients.iter().any(|c| c.unsure > 0), "no kill met a change under way");
}

/// Lets keyd live for a while, and its worker not always as long; gives how often a worker was killed.
async fn live(keyd: &Keyd, rng: &mut Rng) -> u64 {
    let mut kills = 0;
    let mut pieces: Vec<u64> = (0..rng.u64(0..=WORKER_KILLS)).map(|_| rng.u64(..LIFE.end)).collect();
    let end = rng.u64(LIFE);
    pieces.retain(|at| *at < end);
    pieces.sort_unstable();
    let start = Instant::now();
    for at in pieces {
        sleep_until(start + Duration::from_millis(at)).await;
        // Now and then there is none: the last one is just being replaced.
        if let Ok(worker) = keyd.worker()
            && kill(worker, Signal::SIGKILL).is_ok()
        {
            kills += 1;
        }
    }
    sleep_until(start + Duration::from_millis(end)).await;
    kills
}

/// A client with keys of its own, and what keyd acknowledged of them.
struct Load {
    keyd: Client,
    /// The beginning of its keys' ids.
    name: String,
    kinds: &'static [(Algorithm, Protection)],
    rng: Rng,
    /// The keys that there are, or may be.
    keys: BTreeMap<KeyId, Acknowledged>,
    /// How many calls of each kind were acknowledged: create, rotate, delete, sign.
    done: [u32; 4],
    /// How many changes were neither acknowledged nor refused.
    unsure: usize,
}

/// What is known of a key.
#[derive(Clone)]
enum Acknowledged {
    /// It is as keyd said last.
    Is(KeyInfo),
    /// Its creation was under way.
    MayBe(Algorithm, Protection),
    /// Its rotation was under way.
    MayBeNewer(KeyInfo),
    /// Its deletion was under way.
    MayBeGone(KeyInfo),
}
use Acknowledged::{Is, MayBe, MayBeGone, MayBeNewer};

impl Load {
    /// Makes, rotates, deletes and uses keys until keyd is killed.
    async fn until(mut self, killed: Arc<AtomicBool>) -> Self {
        loop {
            let before = self.keys.clone();
            let Err(failure) = self.step().await else { continue };
            if failure.reason == Reason::TokenInterrupted {
                // Two workers were killed under one call, and keyd says that it did not come to pass.
                self.keys = before;
                continue;
            }
            assert!(killed.load(Ordering::SeqCst), "{}: {:?}: {failure}", self.name, failure.reason);
            assert_eq!(failure.reason, Reason::Unreachable, "{failure}");
            return self;
        }
    }

    async fn step(&mut self) -> Result<(), Failure> {
        let id: KeyId = format!("{}-{}", self.name, self.rng.usize(..KEYS)).parse().unwrap();
        let Some(Is(info)) = self.keys.get(&id) else { return self.create(id).await };
        let info = info.clone();
        match self.rng.u8(..8) {
            0..2 => self.rotate(info).await,
            2..4 => self.delete(info).await,
            _ => self.sign(&info).await,
        }
    }

    async fn create(&mut self, id: KeyId) -> Result<(), Failure> {
        let (algorithm, protection) = *self.rng.choice(self.kinds).unwrap();
        self.keys.insert(id.clone(), MayBe(algorithm, protection));
        self.unsure += 1;
        let info = self.keyd.create_key(&id, algorithm, None).await?;
        assert_eq!((info.version, info.algorithm, info.protection), (1, algorithm, protection));
        self.acknowledged(0, id, Some(info));
        Ok(())
    }

    async fn rotate(&mut self, old: KeyInfo) -> Result<(), Failure> {
        self.keys.insert(old.key.clone(), MayBeNewer(old.clone()));
        self.unsure += 1;
        let info = self.keyd.rotate_key(&old.key, None, None).await?;
        assert_is_successor(&info, &old);
        self.acknowledged(1, old.key, Some(info));
        Ok(())
    }

    async fn delete(&mut self, old: KeyInfo) -> Result<(), Failure> {
        self.keys.insert(old.key.clone(), MayBeGone(old.clone()));
        self.unsure += 1;
        self.keyd.delete_key(&old.key).await?;
        self.acknowledged(2, old.key, None);
        Ok(())
    }

    fn acknowledged(&mut self, kind: usize, id: KeyId, info: Option<KeyInfo>) {
        match info {
            Some(info) => self.keys.insert(id, Is(info)),
            None => self.keys.remove(&id),
        };
        self.unsure -= 1;
        self.done[kind] += 1;
    }

    async fn sign(&mut self, info: &KeyInfo) -> Result<(), Failure> {
        let input = SignInput::Message(self.name.as_bytes());
        let signed = self.keyd.sign(&info.key, input).await?;
        info.public_key.verify(input, &signed.signature).unwrap();
        self.done[3] += 1;
        Ok(())
    }

    /// Holds what is listed after a restart against what was acknowledged before, and signs with each key.
    async fn check(mut self, listed: Vec<KeyInfo>) -> Self {
        let mut listed: BTreeMap<_, _> = listed.into_iter().map(|info| (info.key.clone(), info)).collect();
        for (id, before) in std::mem::take(&mut self.keys) {
            let now = match (before, listed.remove(&id)) {
                (Is(old) | MayBeNewer(old) | MayBeGone(old), Some(now)) if now.version == old.version => {
                    assert_same(&now, &old);
                    now
                }
                (MayBeNewer(old), Some(now)) => {
                    assert_is_successor(&now, &old);
                    now
                }
                (MayBe(algorithm, protection), Some(now)) => {
                    assert_eq!((now.version, now.algorithm, now.protection), (1, algorithm, protection));
                    now
                }
                (MayBe(..) | MayBeGone(_), None) => continue,
                (_, now) => panic!("{id} was acknowledged and is now {now:?}"),
            };
            self.sign(&now).await.unwrap();
            self.keys.insert(id, Is(now));
        }
        self
    }
}

fn assert_same(now: &KeyInfo, old: &KeyInfo) {
    assert_eq!(now.public_key, old.public_key, "{}", now.key);
    assert_eq!((now.created_at, now.protection), (old.created_at, old.protection), "{}", now.key);
}

fn assert_is_successor(new: &KeyInfo, old: &KeyInfo) {
    assert_eq!(new.version, old.version + 1, "{}", new.key);
    assert_eq!((new.algorithm, new.protection), (old.algorithm, old.protection), "{}", new.key);
    assert_ne!(new.public_key, old.public_key, "{}", new.key);
}
