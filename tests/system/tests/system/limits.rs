//! Many keys, many callers, and a token that hangs.

use std::path::Path;
use std::time::Duration;

use keyd_api::{Client, KeyInfo};
use keyd_core::{Algorithm, Failure, HealthState, KeyId, Protection, Reason, SignInput};
use peers::process::freeze;
use peers::token::Token;
use system::keyd::{Keyd, namespaces, token_with_pin};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Most keys of the keyd under test.
const KEYS: usize = 2000;
/// Algorithms whose keys are made and sign in no time.
const SIGNERS: [Algorithm; 5] =
    [Algorithm::MlDsa44, Algorithm::MlDsa65, Algorithm::MlDsa87, Algorithm::EcP256, Algorithm::EcP384];
/// Clients, each with a connection of its own.
const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_keys_are_made_by_many_clients_up_to_the_limit_and_not_one_more() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("[limits]\nkeys = {KEYS}\n") + &namespaces(&[("soft", &[Protection::Software])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let mut makers = JoinSet::new();
    for number in 0..CLIENTS {
        makers.spawn(make_until_refused(keyd.client(), number));
    }
    let made = makers.join_all().await;
    let (made, refusals): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    assert!(made.iter().all(|keys| keys.len() > KEYS / CLIENTS / 2), "every client had its share");
    let mut made = made.concat();
    made.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(made.len(), KEYS);
    for refusal in refusals {
        assert_eq!(refusal.reason, Reason::LimitExceeded, "{refusal}");
        for words in ["2000 keys", "limits.keys of keyd.toml", "`keyd key delete`"] {
            assert!(refusal.message.contains(words), "{words}: {refusal}");
        }
    }
    assert_same(&keyd.client().list_keys(None).await.unwrap(), &made);

    let (first, again) = (made[0].key.clone(), Algorithm::EcP256);
    keyd.client().delete_key(&first).await.unwrap();
    made[0] = keyd.client().create_key(&first, again, None).await.unwrap();
    keyd.stop().await.unwrap();

    // The limit is lowered by one: every key stays, and two must go before there is room.
    let lowered = config.replace(&format!("keys = {KEYS}"), &format!("keys = {}", KEYS - 1));
    let keyd = Keyd::start(dir.path(), &lowered).await.unwrap();
    let client = keyd.client();
    assert_same(&client.list_keys(None).await.unwrap(), &made);
    for key in made.iter().step_by(KEYS / CLIENTS) {
        sign(&client, key, b"after the restart").await.unwrap();
    }
    client.delete_key(&first).await.unwrap();
    let refusal = client.create_key(&first, again, None).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::LimitExceeded, "{refusal}");
    client.delete_key(&made[1].key).await.unwrap();
    client.create_key(&first, again, None).await.unwrap();
    keyd.stop().await.unwrap();
}

async fn make_until_refused(keyd: Client, client: usize) -> (Vec<KeyInfo>, Failure) {
    let mut made = Vec::new();
    loop {
        let key = format!("soft/client{client}-{}", made.len()).parse().unwrap();
        let algorithm = SIGNERS[made.len() % SIGNERS.len()];
        match keyd.create_key(&key, algorithm, None).await {
            Ok(info) => made.push(info),
            Err(refusal) => return (made, refusal),
        }
    }
}

fn assert_same(listed: &[KeyInfo], made: &[KeyInfo]) {
    let short = |keys: &[KeyInfo]| -> Vec<_> {
        keys.iter().map(|k| (k.key.clone(), k.algorithm, k.version, k.public_key.clone())).collect()
    };
    assert_eq!(listed.len(), made.len());
    assert!(short(listed) == short(made), "every key is listed as it was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_signers_at_once_are_all_served() {
    /// More connections than keyd has threads, and on one of them more calls than one user has at work at once.
    const CONNECTIONS: usize = 64;
    const CALLS: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let config =
        "[limits]\ncalls_per_user = 16\n".to_owned() + &namespaces(&[("soft", &[Protection::Software])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let keys = make_one_of_each(&keyd.client()).await;

    let mut signers = JoinSet::new();
    let one = keyd.client();
    let connections = (0..CONNECTIONS).map(|_| keyd.client());
    for (number, client) in connections.chain((0..CALLS).map(|_| one.clone())).enumerate() {
        let key = keys[number % keys.len()].clone();
        signers.spawn(async move {
            for round in 0..4 {
                sign(&client, &key, format!("{number}.{round}").as_bytes()).await.unwrap();
            }
        });
    }
    assert_eq!(signers.join_all().await.len(), CONNECTIONS + CALLS);
    keyd.stop().await.unwrap();
}

async fn make_one_of_each(keyd: &Client) -> Vec<KeyInfo> {
    let mut keys = Vec::new();
    for algorithm in SIGNERS {
        let key = format!("soft/{algorithm}").parse().unwrap();
        keys.push(keyd.create_key(&key, algorithm, None).await.unwrap());
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_token_costs_its_callers_a_deadline_and_nobody_else_anything() {
    /// As configured.
    const DEADLINE: Duration = Duration::from_millis(1500);
    let dir = tempfile::tempdir().unwrap();
    let keyd = on_token(dir.path(), DEADLINE).await;
    let client = keyd.client();
    let in_token = client.create_key(&"hsm/held".parse().unwrap(), Algorithm::EcP256, None).await.unwrap();
    assert_eq!(in_token.protection, Protection::Hsm);
    make_one_of_each(&client).await;
    let usual = others_for(&keyd, DEADLINE).await;

    let worker = keyd.worker().unwrap();
    freeze(worker).await.unwrap();
    let (callers, others) = tokio::join!(
        async {
            let hurried = client.clone().with_deadline(DEADLINE / 3);
            tokio::join!(failed(&client, &in_token), failed(&hurried, &in_token))
        },
        others_for(&keyd, DEADLINE),
    );
    let ((patient, patient_took), (hurried, hurried_took)) = callers;
    for failure in [&patient, &hurried] {
        assert_eq!(failure.reason, Reason::DeadlineExceeded, "{failure}");
    }
    assert!(patient.message.contains("no answer within 1.5s. The token hangs"), "{patient}");
    assert!((DEADLINE..DEADLINE * 2).contains(&patient_took), "{patient_took:?}");
    assert!((DEADLINE / 3..DEADLINE).contains(&hurried_took), "{hurried_took:?}");
    for (what, usual, meanwhile) in
        [("sign", usual.0, others.0), ("make", usual.1, others.1), ("list", usual.2, others.2)]
    {
        println!("{what}: usually {usual:?}, meanwhile {meanwhile:?}");
        let normal = (usual.median * 4).max(DEADLINE / 10);
        assert!(
            meanwhile.median < normal && meanwhile.slowest < DEADLINE,
            "{what}: {usual:?}, {meanwhile:?}"
        );
    }

    sign(&client, &in_token, b"the next worker").await.unwrap();
    assert_ne!(keyd.worker().unwrap(), worker);
    assert_eq!(keyd.client().status().await.unwrap().devices[0].state, HealthState::Ok.name());
    keyd.stop().await.unwrap();
}

async fn on_token(dir: &Path, deadline: Duration) -> Keyd {
    let token = Token::softhsm(dir).unwrap();
    let config = token_with_pin(&token, dir).unwrap()
        + &format!("call_deadline_ms = {}\n", deadline.as_millis())
        + &namespaces(&[("hsm", &[Protection::Hsm]), ("soft", &[Protection::Software])]);
    Keyd::start(dir, &config).await.unwrap()
}

async fn failed(client: &Client, key: &KeyInfo) -> (Failure, Duration) {
    let start = Instant::now();
    (sign(client, key, b"into the void").await.unwrap_err(), start.elapsed())
}

/// How long calls took.
#[derive(Clone, Copy, Debug)]
struct Latency {
    median: Duration,
    slowest: Duration,
}

/// Callers who need no token, for a while: signing, making and deleting, listing.
async fn others_for(keyd: &Keyd, time: Duration) -> (Latency, Latency, Latency) {
    let (signer, maker, lister) = (keyd.client(), keyd.client(), keyd.client());
    let key = signer.show_key(&"soft/ml-dsa-65".parse().unwrap()).await.unwrap();
    let passing: KeyId = "soft/passing".parse().unwrap();
    tokio::join!(
        latency(time, || async { sign(&signer, &key, b"meanwhile").await.unwrap() }),
        latency(time, || async {
            maker.create_key(&passing, Algorithm::EcP256, None).await.unwrap();
            maker.delete_key(&passing).await.unwrap();
        }),
        latency(time, || async { drop(lister.list_keys(None).await.unwrap()) }),
    )
}

async fn latency<F: Future<Output = ()>>(time: Duration, call: impl Fn() -> F) -> Latency {
    let (start, mut took) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let begin = Instant::now();
        call().await;
        took.push(begin.elapsed());
    }
    took.sort();
    Latency { median: took[took.len() / 2], slowest: took[took.len() - 1] }
}

/// Signs and verifies.
async fn sign(keyd: &Client, key: &KeyInfo, message: &[u8]) -> Result<(), Failure> {
    let signed = keyd.sign(&key.key, SignInput::Message(message)).await?;
    key.public_key.verify(SignInput::Message(message), &signed.signature).unwrap();
    Ok(())
}
