//! A TPM, or a bus before it, that fails in mid-command.

use std::time::Duration;

use keyd_core::{HealthState, Reason, Sealer, Secret};
use keyd_tpm::{Counter, Tpm, TpmConfig};
use peers::interposer::{Interposer, Meddle, NV_INCREMENT, START_AUTH_SESSION, UNSEAL};
use tokio::time::Instant;

use crate::{Node, config};

const CONTEXT: &[u8] = b"a/b";
const DEADLINE: Duration = Duration::from_secs(5);
/// How late an answer is that still counts.
const LATE: Duration = Duration::from_secs(1);
const HANDLE: u32 = 0x0180_4b44;

fn seed() -> Secret {
    Secret::new((1..=32).collect())
}

fn impatient(tcti: &str) -> Tpm {
    Tpm::open(TpmConfig { call_deadline: DEADLINE, ..config(tcti) }).unwrap()
}

#[tokio::test]
async fn a_connection_that_ends_in_mid_command_is_opened_again_and_the_call_made_once_more() {
    let node = Node::new();
    let bus = Interposer::before(&node.swtpm).unwrap();
    let tpm = Tpm::open(config(&bus.tcti())).unwrap();
    let blob = tpm.seal(&seed(), CONTEXT).await.unwrap();
    for meddle in
        [Meddle::CloseBefore(UNSEAL), Meddle::CloseAfter(UNSEAL), Meddle::CloseAfter(START_AUTH_SESSION)]
    {
        bus.meddle(meddle.clone());
        assert_eq!(tpm.unseal(&blob, CONTEXT).await.unwrap().expose(), seed().expose(), "{meddle:?}");
        assert!(bus.has_meddled());
    }
}

#[tokio::test]
async fn a_count_whose_answer_is_lost_is_not_counted_twice() {
    let node = Node::new();
    let bus = Interposer::before(&node.swtpm).unwrap();
    let tpm = Tpm::open(config(&bus.tcti())).unwrap();
    let ours = tpm.counter_authorization().unwrap();
    let first = tpm.make_counter(HANDLE, &ours).await.unwrap();
    for (meddle, to) in
        [(Meddle::CloseAfter(NV_INCREMENT), first + 1), (Meddle::CloseBefore(NV_INCREMENT), first + 2)]
    {
        bus.meddle(meddle);
        tpm.advance_counter(HANDLE, &ours, to).await.unwrap();
        assert!(bus.has_meddled());
        assert_eq!(tpm.counter(HANDLE, Some(&ours)).await.unwrap(), Counter::At(to));
    }
}

#[tokio::test]
async fn a_tpm_that_is_gone_in_mid_command_is_absent_within_the_deadline_and_used_once_it_is_back() {
    let mut node = Node::new();
    let bus = Interposer::before(&node.swtpm).unwrap();
    let tpm = impatient(&bus.tcti());
    let blob = tpm.seal(&seed(), CONTEXT).await.unwrap();
    bus.meddle(Meddle::CloseBefore(UNSEAL));
    node.swtpm.stop();
    let start = Instant::now();
    let failure = tpm.unseal(&blob, CONTEXT).await.unwrap_err();
    assert_eq!(failure.reason, Reason::TpmAbsent, "{failure}");
    assert!(start.elapsed() <= DEADLINE);
    assert_eq!(tpm.health().await.state, HealthState::Absent);
    node.swtpm.restart().unwrap();
    // What was to be meddled with is met by now.
    let _ = tpm.unseal(&blob, CONTEXT).await;
    assert_eq!(tpm.unseal(&blob, CONTEXT).await.unwrap().expose(), seed().expose());
}

#[tokio::test]
async fn an_answer_that_never_comes_costs_each_caller_its_deadline_until_the_connection_ends() {
    let node = Node::new();
    let bus = Interposer::before(&node.swtpm).unwrap();
    let tpm = impatient(&bus.tcti());
    let blob = tpm.seal(&seed(), CONTEXT).await.unwrap();
    bus.meddle(Meddle::Swallow(UNSEAL));
    let start = Instant::now();
    let (first, second) = tokio::join!(tpm.unseal(&blob, CONTEXT), tpm.read_pcrs(&[0]));
    for failure in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(failure.reason, Reason::DeadlineExceeded, "{failure}");
    }
    assert!(start.elapsed() < DEADLINE * 2, "both waited at once");
    let health = tpm.health().await;
    assert_eq!(health.state, HealthState::Absent, "{}", health.detail);
    assert!(health.detail.contains("has not answered"), "{}", health.detail);
    bus.hang_up();
    assert_eq!(tpm.unseal(&blob, CONTEXT).await.unwrap().expose(), seed().expose());
    assert_eq!(tpm.health().await.state, HealthState::Ok);
}

#[tokio::test]
async fn a_late_answer_within_the_deadline_is_taken() {
    let node = Node::new();
    let bus = Interposer::before(&node.swtpm).unwrap();
    let tpm = Tpm::open(config(&bus.tcti())).unwrap();
    let blob = tpm.seal(&seed(), CONTEXT).await.unwrap();
    bus.meddle(Meddle::Delay(UNSEAL, LATE));
    let start = Instant::now();
    assert_eq!(tpm.unseal(&blob, CONTEXT).await.unwrap().expose(), seed().expose());
    assert!(start.elapsed() >= LATE);
}

#[tokio::test]
async fn garbage_for_an_answer_is_never_a_secret_and_the_next_call_is_served() {
    let node = Node::new();
    let bus = Interposer::before(&node.swtpm).unwrap();
    let tpm = impatient(&bus.tcti());
    let blob = tpm.seal(&seed(), CONTEXT).await.unwrap();
    let success = |body: &[u8]| {
        let length = u32::try_from(10 + body.len()).unwrap().to_be_bytes();
        [&[0x80, 0x02][..], &length, &[0; 4], body].concat()
    };
    let garbage = [
        vec![],
        vec![0xff; 3],
        vec![0xff; 10],
        vec![0; 10],
        vec![0xa5; 4096],
        // Impossible lengths, and one that is never filled.
        [&[0x80, 0x02, 0xff, 0xff, 0xff, 0xff][..], &[0; 4]].concat(),
        [&[0x80, 0x02, 0, 0, 0, 0][..], &[0; 4]].concat(),
        [&[0x80, 0x02, 0, 0, 0x0f, 0xff][..], &[0; 4]].concat(),
        // Success, with nothing, with a length beyond the end, with 64 bytes of a secret and no authentication.
        success(&[]),
        success(&[0, 0, 0, 40, 0xff, 0xff]),
        success(&[&[0, 0, 0, 66, 0, 64][..], &[9; 64], &[0; 5]].concat()),
        // A code that no standard has.
        [&[0x80, 0x01, 0, 0, 0, 10][..], &[0xde, 0xad, 0xbe, 0xef]].concat(),
    ];
    for answer in garbage {
        let told = hex::encode(&answer[..answer.len().min(16)]);
        bus.meddle(Meddle::Answer(UNSEAL, answer));
        match tpm.unseal(&blob, CONTEXT).await {
            // The connection broke, and the call was made once more.
            Ok(secret) => assert_eq!(secret.expose(), seed().expose(), "{told}"),
            Err(failure) => {
                let known = [Reason::TpmFailed, Reason::TpmAbsent, Reason::DeadlineExceeded];
                assert!(known.contains(&failure.reason), "{told}: {:?}: {failure}", failure.reason);
            }
        }
        assert!(bus.has_meddled(), "{told}");
        assert_eq!(tpm.unseal(&blob, CONTEXT).await.unwrap().expose(), seed().expose(), "after {told}");
    }
}
