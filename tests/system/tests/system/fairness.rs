//! No local user can keep the others out.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use keyd_core::{Algorithm, Protection, Reason, SignInput};
use peers::process::freeze;
use peers::swtpm::Swtpm;
use peers::token::Token;
use system::keyd::{Keyd, namespaces, token_with_pin};
use system::other_user::keyd_as_another_user;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Another user is answered, though only to be denied.
async fn assert_another_user_is_answered(dir: &Path) {
    let output = keyd_as_another_user(dir, "keyd.sock", &["--json", "status"]).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("DENIED"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_user_take_turns_over_all_its_connections_and_others_do_not_wait() {
    /// How long the token may keep a call.
    const DEADLINE: Duration = Duration::from_secs(4);
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let config = token_with_pin(&token, dir.path()).unwrap()
        + &format!("call_deadline_ms = {}\n[limits]\ncalls_per_user = 2\n", DEADLINE.as_millis())
        + &namespaces(&[("hsm", &[Protection::Hsm])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    let key = keyd.client().create_key(&"hsm/a".parse().unwrap(), Algorithm::EcP256, None).await.unwrap().key;

    // Two calls, on connections of their own, that the token keeps.
    freeze(keyd.worker().unwrap()).await.unwrap();
    let kept: Vec<_> = [keyd.client(), keyd.client()]
        .into_iter()
        .map(|client| {
            let key = key.clone();
            tokio::spawn(async move { client.sign(&key, SignInput::Message(b"kept")).await })
        })
        .collect();
    let start = Instant::now();
    let hurried = keyd.client().with_deadline(Duration::from_millis(200));
    while hurried.show_key(&key).await.is_ok() {
        assert!(start.elapsed() < DEADLINE, "a third call never had to wait");
        sleep(Duration::from_millis(20)).await;
    }
    assert_another_user_is_answered(dir.path()).await;
    assert!(kept.iter().all(|call| !call.is_finished()), "the two were at work all the time");
    // The third has its turn once one of the two has ended.
    keyd.client().show_key(&key).await.unwrap();
    assert!(start.elapsed() > DEADLINE / 2, "{:?}", start.elapsed());
    for call in kept {
        assert_eq!(call.await.unwrap().unwrap_err().reason, Reason::DeadlineExceeded);
    }
    keyd.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_floods_the_tpm_is_refused_more_and_others_have_their_turn() {
    /// As many calls as one user may have at work by default, and four times as many as wait at the TPM.
    const FLOOD: usize = 256;
    let dir = tempfile::tempdir().unwrap();
    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    let config = format!("[tpm]\ntcti = {:?}\n", tpm.tcti())
        + &namespaces(&[("soft", &[Protection::Software])])
        + "[[allow]]\nusers = [65534]\noperations = [\"attest\"]\n";
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    keyd.json(&["node", "show"]).await.unwrap();
    let mut flood = JoinSet::new();
    for _ in 0..FLOOD {
        let client = keyd.client();
        flood.spawn(async move {
            loop {
                if let Err(refusal) = client.read_pcrs(&[0]).await {
                    return refusal;
                }
            }
        });
    }
    // Some are refused at once; the others go on until they are.
    assert_eq!(flood.join_next().await.unwrap().unwrap().reason, Reason::LimitExceeded);
    for _ in 0..5 {
        let shown = keyd_as_another_user(dir.path(), "keyd.sock", &["--json", "node", "show"]).await.unwrap();
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    }
    drop(flood);
    keyd.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_user_leave_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        "[limits]\nconnections_per_user = 3\n".to_owned() + &namespaces(&[("soft", &[Protection::Software])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    let mut held = Vec::new();
    // The connection that found keyd up may have kept one of these out.
    let refused = loop {
        held.push(UnixStream::connect(keyd.socket()).await.unwrap());
        if let Err(refused) = keyd.client().status().await {
            break refused;
        }
        assert!(held.len() < 5, "no limit");
    };
    assert_eq!(refused.reason, Reason::Unreachable, "{refused}");
    assert!(keyd.process.log().unwrap().contains("limits.connections_per_user"));
    assert_another_user_is_answered(dir.path()).await;
    held.pop();
    // keyd learns of the end of a connection a moment later.
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(failure) = keyd.client().status().await {
        assert!(Instant::now() < deadline, "{failure}");
        sleep(Duration::from_millis(20)).await;
    }
    keyd.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_message_is_the_one_that_the_configuration_names() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        "[limits]\nmessage_bytes = 1000\n".to_owned() + &namespaces(&[("soft", &[Protection::Software])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let (client, key) = (keyd.client(), "soft/a".parse().unwrap());
    client.create_key(&key, Algorithm::MlDsa65, None).await.unwrap();
    client.sign(&key, SignInput::Message(&[7; 1000])).await.unwrap();
    let refusal = client.sign(&key, SignInput::Message(&[7; 1001])).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::BadRequest);
    assert!(refusal.message.contains("1000 bytes (limits.message_bytes of keyd.toml)"), "{refusal}");
    let counted = client.metrics().await.unwrap();
    assert!(counted.contains("keyd_limited_total{limit=\"message_bytes\"} 1\n"), "{counted}");
}
