//! A disk that is full.

use std::path::Path;

use keyd_api::{Client, KeyInfo};
use keyd_core::{Algorithm, Failure, Protection, Reason, SignInput};
use peers::token::Token;
use system::keyd::{Keyd, namespaces, token_with_pin};

/// More keys than any store of these tests has room for.
const MANY: usize = 4000;

async fn create(client: &Client, key: &str, algorithm: Algorithm) -> Result<KeyInfo, Failure> {
    client.create_key(&key.parse().unwrap(), algorithm, None).await
}

/// Makes keys until the store takes no more.
async fn fill(client: &Client, namespace: &str, algorithm: Algorithm) -> (Vec<KeyInfo>, Failure) {
    let mut made = Vec::new();
    for number in 0..MANY {
        match create(client, &format!("{namespace}/{number}"), algorithm).await {
            Ok(info) => made.push(info),
            Err(refusal) => return (made, refusal),
        }
    }
    panic!("{MANY} keys, and the disk is not full");
}

async fn assert_all_sign(client: &Client, made: &[KeyInfo]) {
    let mut listed = client.list_keys(None).await.unwrap();
    let mut made: Vec<_> = made.iter().map(|info| (info.key.clone(), info.public_key.clone())).collect();
    made.sort_by(|a, b| a.0.cmp(&b.0));
    let listed: Vec<_> = listed.drain(..).map(|info| (info.key, info.public_key)).collect();
    assert!(listed == made, "{} are listed, {} were acknowledged", listed.len(), made.len());
    for (key, public) in made {
        let signed = client.sign(&key, SignInput::Message(b"full")).await.unwrap();
        public.verify(SignInput::Message(b"full"), &signed.signature).unwrap();
    }
}

fn size(dir: &Path) -> u64 {
    std::fs::metadata(dir.join("state/keys.redb")).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_changes_and_loses_nothing_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = Keyd::start(dir.path(), &namespaces(&[("soft", &[Protection::Software])])).await.unwrap();
    let client = keyd.client();
    create(&client, "soft/first", Algorithm::MlDsa87).await.unwrap();
    keyd.process.limit_files(Some(size(dir.path()))).await.unwrap();

    let (mut made, refusal) = fill(&client, "soft", Algorithm::MlDsa87).await;
    println!("{} keys until the disk was full: {refusal}", made.len());
    assert_eq!(refusal.reason, Reason::StoreFailed, "{refusal}");
    for words in ["keys.redb", "the disk is full", "free some space", "go on signing"] {
        assert!(refusal.message.contains(words), "{refusal}");
    }
    made.push(client.show_key(&"soft/first".parse().unwrap()).await.unwrap());
    assert_all_sign(&client, &made).await;
    let again = create(&client, "soft/again", Algorithm::MlDsa87).await.unwrap_err();
    assert_eq!(again.reason, Reason::StoreFailed, "it stays full: {again}");
    assert_all_sign(&client, &made).await;

    // There is room again, and no restart is needed.
    keyd.process.limit_files(None).await.unwrap();
    made.push(create(&client, "soft/again", Algorithm::MlDsa87).await.unwrap());
    assert_all_sign(&client, &made).await;

    // Full once more, and killed in that state.
    keyd.process.limit_files(Some(size(dir.path()))).await.unwrap();
    let (more, _) = fill(&client, "soft", Algorithm::EcP256).await;
    made.extend(more);
    keyd.kill().await.unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    assert_all_sign(&keyd.client(), &made).await;
    keyd.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_finds_no_room_in_the_store_leaves_none_in_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let tables: &[(&str, &[Protection])] = &[("hsm", &[Protection::Hsm]), ("soft", &[Protection::Software])];
    let config = token_with_pin(&token, dir.path()).unwrap() + &namespaces(tables);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let client = keyd.client();
    // The worker runs before the limit, and is not under it.
    let held = create(&client, "hsm/held", Algorithm::EcP256).await.unwrap();
    keyd.process.limit_files(Some(size(dir.path()))).await.unwrap();
    let (mut made, _) = fill(&client, "soft", Algorithm::MlDsa87).await;
    made.push(held);
    let refusal = create(&client, "hsm/refused", Algorithm::EcP256).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::StoreFailed, "{refusal}");
    assert_all_sign(&client, &made).await;
    let doctor = keyd.output(&["doctor"]).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&doctor.stdout), "all is well\n");
}
