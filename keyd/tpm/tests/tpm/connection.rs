//! The connection: absent, broken, hanging, full; and what stays loaded.

use std::time::Duration;

use keyd_core::{HealthState, Reason, Sealer, Secret};
use keyd_tpm::{Tpm, TpmConfig, on_behalf_of};
use tokio::task::JoinSet;

use crate::{Node, config};
use peers::ports::neighbours;

#[tokio::test]
async fn an_absent_tpm_is_told_and_used_once_it_is_there() {
    let mut node = Node::new();
    node.swtpm.stop();
    let tpm = node.tpm();
    let failure = tpm.seal(&Secret::new(vec![1; 32]), b"k").await.unwrap_err();
    assert_eq!(failure.reason, Reason::TpmAbsent);
    assert!(failure.message.contains(&node.swtpm.tcti()), "{failure}");
    assert_eq!(tpm.health().await.state, HealthState::Absent);
    node.swtpm.restart().unwrap();
    let blob = tpm.seal(&Secret::new(vec![1; 32]), b"k").await.unwrap();
    assert_eq!(tpm.health().await.state, HealthState::Ok);
    node.swtpm.stop();
    assert_eq!(tpm.unseal(&blob, b"k").await.unwrap_err().reason, Reason::TpmAbsent, "gone while connected");
}

#[tokio::test]
async fn a_missing_device_is_told_by_its_name() {
    let tpm = Tpm::open(config("device:/dev/no-such-tpm")).unwrap();
    let failure = tpm.endorsement().await.unwrap_err();
    assert_eq!(failure.reason, Reason::TpmAbsent);
    assert!(failure.message.starts_with("TPM device:/dev/no-such-tpm: cannot connect"), "{failure}");
}

#[tokio::test]
async fn a_hanging_tpm_costs_each_caller_its_deadline() {
    // It accepts and never answers.
    let silent = neighbours().unwrap();
    let port = silent.0.local_addr().unwrap().port();
    let tcti = format!("swtpm:host=127.0.0.1,port={port}").parse().unwrap();
    let call_deadline = Duration::from_millis(200);
    let tpm = Tpm::open(TpmConfig { call_deadline, ..TpmConfig::new(tcti) }).unwrap();
    let (a, b) = tokio::join!(tpm.read_pcrs(&[0]), tpm.srk_name());
    for failure in [a.unwrap_err(), b.unwrap_err()] {
        assert_eq!(failure.reason, Reason::DeadlineExceeded, "{failure}");
    }
    assert_eq!(tpm.health().await.state, HealthState::Absent);
}

#[tokio::test]
async fn interleaved_calls_leave_nothing_loaded() {
    let node = Node::new();
    let tpm = node.tpm();
    let blob = tpm.seal(&Secret::new(vec![1; 32]), b"k").await.unwrap();
    for _ in 0..5 {
        let background = tpm.in_background();
        let secret = Secret::new(vec![2; 32]);
        let (sealed, unsealed, quoted, described, forged) = tokio::join!(
            background.seal(&secret, b"k"),
            tpm.unseal(&blob, b"k"),
            tpm.quote(&[0, 7], b"n"),
            tpm.endorsement(),
            tpm.activate_credential(&[0, 1, 2], &[0; 4]),
        );
        assert!(sealed.is_ok() && unsealed.is_ok() && quoted.is_ok() && described.is_ok() && forged.is_err());
    }
    drop(tpm);
    assert_eq!(node.tool("tpm2_getcap", &["handles-transient"]), "");
    assert_eq!(node.tool("tpm2_getcap", &["handles-loaded-session"]), "");
}

#[tokio::test]
async fn a_user_who_floods_the_tpm_holds_up_nobody_else() {
    /// More than one user's part of the queue.
    const FLOOD: usize = 100;
    let node = Node::new();
    let tpm = node.tpm();
    let mut flood = JoinSet::new();
    for _ in 0..FLOOD {
        let tpm = tpm.clone();
        flood.spawn(on_behalf_of(Some(1), async move { tpm.quote(&[0], b"n").await.map(drop) }));
    }
    // All of them are in the queue, or refused.
    tokio::task::yield_now().await;
    on_behalf_of(Some(2), tpm.quote(&[0], b"n")).await.unwrap();
    let before: Vec<_> = std::iter::from_fn(|| flood.try_join_next()).map(Result::unwrap).collect();
    let served = before.iter().filter(|result| result.is_ok()).count();
    assert!(served <= 2, "{served} calls went before");
    let refusals: Vec<_> = before.into_iter().chain(flood.join_all().await).filter_map(Result::err).collect();
    assert!(refusals.len() >= FLOOD - 65, "{}", refusals.len());
    assert!(refusals.iter().all(|refusal| refusal.reason == Reason::LimitExceeded), "{refusals:?}");
}

#[tokio::test]
async fn what_a_dead_client_left_loaded_does_not_stand_in_the_way() {
    let node = Node::new();
    for context in ["1", "2", "3"] {
        node.tool("tpm2_createprimary", &["-Q", "-c", context]);
    }
    assert_eq!(node.tool("tpm2_getcap", &["handles-transient"]).lines().count(), 3, "it is full");
    assert!(node.tpm().quote(&[0], b"n").await.is_ok());
    assert_eq!(node.tool("tpm2_getcap", &["handles-transient"]), "");
}

#[tokio::test]
async fn impossible_requests_are_refused() {
    let node = Node::new();
    let tpm = node.tpm();
    for failure in [
        tpm.read_pcrs(&[]).await.unwrap_err(),
        tpm.quote(&[24], b"n").await.unwrap_err(),
        tpm.quote(&[0], &[0; 65]).await.unwrap_err(),
        tpm.activate_credential(&[0; 4096], &[0; 32]).await.unwrap_err(),
        tpm.activate_credential(&[0; 32], &[0; 4096]).await.unwrap_err(),
    ] {
        assert_eq!(failure.reason, Reason::BadRequest, "{failure}");
    }
}
