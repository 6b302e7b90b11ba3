//! A PIN that may be wrong is presented once, and an accepted one outlasts whatever happens to token and workers.
//!
//! The shim counts the calls of C_Login, and in most tests lets the real module judge the PIN before it changes the answer.

use std::sync::Arc;
use std::time::Duration;

use fault_shim::code::{
    CKR_CRYPTOKI_NOT_INITIALIZED, CKR_DEVICE_ERROR, CKR_DEVICE_REMOVED, CKR_GENERAL_ERROR, CKR_HOST_MEMORY,
    CKR_PIN_EXPIRED, CKR_PIN_INCORRECT, CKR_PIN_INVALID, CKR_PIN_LEN_RANGE, CKR_PIN_LOCKED,
    CKR_SESSION_HANDLE_INVALID, CKR_TOKEN_NOT_PRESENT, CKR_USER_ALREADY_LOGGED_IN,
    CKR_USER_ANOTHER_ALREADY_LOGGED_IN, CKR_USER_PIN_NOT_INITIALIZED, CKR_VENDOR_DEFINED,
};
use fault_shim::{Action, Fault, Faults};
use keyd_core::{Algorithm, Failure, Health, HealthState, Reason, SignInput, Vault};
use keyd_pkcs11::Token;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::faults::{Bench, CODES, Use, behind_the_shim};
use super::{create, end_worker, kryoptic, secret, sign, token};

/// What is said of a PIN.
const PIN_CODES: [u64; 5] =
    [CKR_PIN_INCORRECT, CKR_PIN_LOCKED, CKR_PIN_EXPIRED, CKR_PIN_INVALID, CKR_PIN_LEN_RANGE];
/// What else C_Login may say, and what it has no business to.
const OTHER_CODES: [u64; 5] = [
    CKR_USER_ALREADY_LOGGED_IN,
    CKR_USER_ANOTHER_ALREADY_LOGGED_IN,
    CKR_USER_PIN_NOT_INITIALIZED,
    CKR_VENDOR_DEFINED + 7,
    u64::MAX >> 32,
];
/// How long a call may take where C_Login hangs.
const DEADLINE: Duration = Duration::from_secs(1);
/// How soon a token that is back must serve.
const SOON: Duration = Duration::from_secs(5);

/// kryoptic locks a token at the tenth wrong PIN; twelve calls over four sessions and a second worker must cost one.
#[tokio::test]
async fn a_wrong_pin_is_presented_once_whatever_is_called() {
    let (_dir, config) = kryoptic();
    let key = create(&token(&config), Algorithm::MlDsa44).await;
    let mut wrong = config.clone();
    wrong.pin = Arc::new(secret("not the pin"));
    let locked_out = token(&wrong);
    let call = || locked_out.sign(&key.handle, Algorithm::MlDsa44, SignInput::Message(b"m"));
    let (a, b, c, d) = tokio::join!(call(), call(), call(), call());
    for result in [a, b, c, d] {
        assert_eq!(result.unwrap_err().reason, Reason::TokenLockedOut);
    }
    kill(Pid::from_raw(locked_out.worker_pid().unwrap().try_into().unwrap()), Signal::SIGKILL).unwrap();
    for _ in 0..8 {
        let refusal = call().await.unwrap_err();
        assert_eq!(refusal.reason, Reason::TokenLockedOut);
        assert!(refusal.message.contains("restart keyd"), "{refusal}");
    }
    let Health { state, .. } = Vault::health(&locked_out).await;
    assert_eq!(state, HealthState::LockedOut);
    sign(&token(&config), &key, b"the token is not locked").await;
}

/// Twelve restarts of keyd with a wrong PIN, where kryoptic would lock the token at the tenth.
#[tokio::test]
async fn the_last_try_is_left_to_the_operator() {
    let (_dir, config) = kryoptic();
    let key = create(&token(&config), Algorithm::MlDsa44).await;
    let mut wrong = config.clone();
    wrong.pin = Arc::new(secret("not the pin"));
    let mut refusals = Vec::new();
    for _ in 0..12 {
        let refusal = token(&wrong).delete(&key.handle).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::TokenLockedOut);
        refusals.push(refusal.message);
    }
    assert!(refusals[0].contains("refused the PIN"), "{refusals:?}");
    assert!(refusals[11].contains("one more try"), "{refusals:?}");
    let refusal = token(&config).delete(&key.handle).await.unwrap_err();
    assert!(refusal.message.contains("one more try"), "the right PIN is not tried either: {refusal}");
}

/// Calls of four clients at once, then of one after the other until the token is locked out and beyond, with a worker that is
/// lost between; then what is said.
async fn use_up(bench: &Bench, token: &Token) -> Failure {
    let call = || bench.make_use(token);
    let (a, b, c, d) = tokio::join!(call(), call(), call(), call());
    for outcome in [a, b, c, d] {
        outcome.unwrap_err();
    }
    if let Some(pid) = token.worker_pid() {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL);
    }
    let start = Instant::now();
    while call().await.unwrap_err().reason != Reason::TokenLockedOut {
        assert!(start.elapsed() < SOON, "not locked out");
        sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..3 {
        call().await.unwrap_err();
        assert_eq!(Vault::health(token).await.state, HealthState::LockedOut);
    }
    call().await.unwrap_err()
}

/// Whatever the module makes of the token's verdict, on either token.
#[tokio::test]
async fn a_wrong_pin_is_presented_once_whatever_becomes_of_the_answer() {
    let codes = PIN_CODES.into_iter().chain(CODES).chain(OTHER_CODES).map(Action::Return);
    let actions = codes.chain([Action::Pass, Action::Abort, Action::Segfault, Action::Hang]);
    for (what, actions) in [Use::Sign, Use::Decapsulate].map(|what| (what, actions.clone())) {
        let mut bench = Bench::new(what).await;
        for action in actions {
            for fault in [Fault::always(action).after(), Fault::always(action)] {
                assert_presented_once(&mut bench, fault).await;
            }
        }
    }
}

async fn assert_presented_once(bench: &mut Bench, fault: Fault) {
    let right = bench.config.clone();
    bench.config.pin = Arc::new(secret("not the pin"));
    if fault.action == Action::Hang {
        bench.config.call_deadline = DEADLINE;
    }
    let locked_out = bench.token();
    bench.inject("C_Login", fault);
    let refusal = use_up(bench, &locked_out).await;
    assert_eq!(refusal.reason, Reason::TokenLockedOut, "{fault:?}: {refusal}");
    assert!(
        refusal.message.contains("\"field-kit\"") && refusal.message.contains("restart keyd"),
        "{refusal}"
    );
    assert_eq!(bench.calls("C_Login"), 1, "{fault:?}");
    bench.faults.lift("C_Login").unwrap();
    let Health { state, detail, .. } = Vault::health(&locked_out).await;
    assert_eq!(state, HealthState::LockedOut, "{fault:?}: {detail}");
    if let Action::Return(_) = fault.action {
        assert!(detail.contains("C_Login gave"), "{fault:?}: {detail}");
    }
    bench.config = right;
    // The token takes the right PIN, and so counts anew.
    bench.make_use(&bench.token()).await.unwrap();
}

/// A right PIN of which the token never said so is no better than a wrong one.
#[tokio::test]
async fn a_pin_that_was_never_accepted_is_presented_once_although_it_is_right() {
    let bench = Bench::new(Use::Sign).await;
    for code in [CKR_DEVICE_REMOVED, CKR_GENERAL_ERROR, CKR_SESSION_HANDLE_INVALID] {
        let token = bench.token();
        bench.inject("C_Login", Fault::always(Action::Return(code)));
        let refusal = use_up(&bench, &token).await;
        assert!(refusal.message.contains("did not say whether the PIN is right (C_Login gave"), "{refusal}");
        assert_eq!((refusal.reason, bench.calls("C_Login")), (Reason::TokenLockedOut, 1), "{refusal}");
    }
}

#[tokio::test]
async fn a_token_that_is_away_at_first_is_not_shown_the_pin_and_opens_when_it_comes() {
    let (dir, config) = kryoptic();
    let key = create(&token(&config), Algorithm::MlDsa44).await;
    let faults = Faults::new(&dir.path().join("faults")).unwrap();
    let config = behind_the_shim(&faults, config);
    let mut wrong = config.clone();
    wrong.pin = Arc::new(secret("not the pin"));
    let (settings, away) = (dir.path().join("kryoptic.conf"), dir.path().join("away"));
    for (config, right) in [(&config, true), (&wrong, false)] {
        std::fs::rename(&settings, &away).unwrap();
        faults.inject("C_Login", Fault::always(Action::Pass)).unwrap();
        let token = token(config);
        let call = || token.sign(&key.handle, Algorithm::MlDsa44, SignInput::Message(b"m"));
        for _ in 0..4 {
            assert_eq!(call().await.unwrap_err().reason, Reason::TokenAbsent);
        }
        assert_eq!(faults.calls("C_Login").unwrap(), 0);
        std::fs::rename(&away, &settings).unwrap();
        let start = Instant::now();
        let outcome = loop {
            match call().await {
                Err(failure) if failure.reason == Reason::TokenAbsent && start.elapsed() < SOON => {
                    sleep(Duration::from_millis(50)).await;
                }
                outcome => break outcome,
            }
        };
        assert_eq!(
            outcome.map_err(|failure| failure.reason).err(),
            (!right).then_some(Reason::TokenLockedOut)
        );
        assert_eq!(faults.calls("C_Login").unwrap(), 1);
    }
}

/// Until the call before C_Login, which tells that the token has gone.
#[tokio::test]
async fn a_token_that_goes_before_it_saw_the_pin_opens_when_it_is_back() {
    let bench = Bench::new(Use::Sign).await;
    for function in ["C_GetSlotList", "C_OpenSession", "C_GetSessionInfo", "C_GetTokenInfo"] {
        let token = bench.token();
        bench.inject("C_Login", Fault::always(Action::Pass));
        for action in [Action::Return(CKR_DEVICE_REMOVED), Action::Abort] {
            bench.inject(function, Fault::always(action));
            for _ in 0..3 {
                bench.make_use(&token).await.unwrap_err();
            }
            bench.faults.lift(function).unwrap();
        }
        assert_eq!(bench.calls("C_Login"), 0, "{function}");
        serves_soon(&bench, &token).await;
    }
}

async fn serves_soon(bench: &Bench, token: &Token) {
    let start = Instant::now();
    while let Err(failure) = bench.make_use(token).await {
        assert!(start.elapsed() < SOON, "{failure}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_accepted_pin_outlasts_workers_and_a_token_that_goes_away() {
    let bench = Bench::new(Use::Sign).await;
    let token = bench.token();
    bench.make_use(&token).await.unwrap();
    for _ in 0..4 {
        end_worker(&token).await;
        serves_soon(&bench, &token).await;
    }
    for code in [
        CKR_DEVICE_REMOVED,
        CKR_TOKEN_NOT_PRESENT,
        CKR_SESSION_HANDLE_INVALID,
        CKR_CRYPTOKI_NOT_INITIALIZED,
        CKR_HOST_MEMORY,
    ] {
        end_worker(&token).await;
        bench.inject("C_Login", Fault::always(Action::Return(code)));
        for _ in 0..6 {
            let away = bench.make_use(&token).await.unwrap_err();
            assert_ne!(away.reason, Reason::TokenLockedOut, "{code:#x}: {away}");
        }
        bench.faults.lift("C_Login").unwrap();
        serves_soon(&bench, &token).await;
    }
    for action in [Action::Abort, Action::Return(CKR_DEVICE_ERROR)] {
        end_worker(&token).await;
        bench.inject("C_Login", Fault::once(action));
        // One may be chance.
        serves_soon(&bench, &token).await;
    }
}

/// It may have been changed with another tool meanwhile.
#[tokio::test]
async fn an_accepted_pin_that_is_refused_later_is_presented_no_more_and_without_a_verdict_twice() {
    let actions = [
        (Action::Return(CKR_PIN_INCORRECT), 1),
        (Action::Return(CKR_PIN_LOCKED), 1),
        (Action::Return(CKR_GENERAL_ERROR), 2),
        (Action::Return(CKR_USER_ALREADY_LOGGED_IN), 2),
        (Action::Abort, 2),
        (Action::Hang, 2),
    ];
    let mut bench = Bench::new(Use::Sign).await;
    for (action, presented) in actions {
        if action == Action::Hang {
            bench.config.call_deadline = DEADLINE;
        }
        let token = bench.token();
        bench.make_use(&token).await.unwrap();
        end_worker(&token).await;
        bench.inject("C_Login", Fault::always(action));
        let refusal = use_up(&bench, &token).await;
        assert_eq!(refusal.reason, Reason::TokenLockedOut, "{action:?}: {refusal}");
        assert_eq!(bench.calls("C_Login"), presented, "{action:?}");
        bench.faults.lift("C_Login").unwrap();
    }
}

#[tokio::test]
async fn a_module_that_says_of_a_login_that_there_was_one_is_held_to_the_sessions_state() {
    let bench = Bench::new(Use::Sign).await;
    let token = bench.token();
    let already = Action::Return(CKR_USER_ALREADY_LOGGED_IN);
    bench.inject("C_Login", Fault::always(already).after());
    for _ in 0..3 {
        bench.make_use(&token).await.unwrap();
        end_worker(&token).await;
    }
    assert_eq!(bench.calls("C_Login"), 3);
}
