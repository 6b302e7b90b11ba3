//! Initialising blank tokens, also such as fail in any call.

use std::time::Duration;

use fault_shim::code::{
    CKR_PIN_EXPIRED, CKR_PIN_INCORRECT, CKR_PIN_INVALID, CKR_PIN_LEN_RANGE, CKR_PIN_LOCKED,
};
use fault_shim::{Action, Fault, Faults};
use keyd_core::{Algorithm, Failure, Reason, Vault};
use keyd_pkcs11::{NewToken, Provisioned, TokenName, TokenState, init_token, list_tokens};
use peers::token::Token as Peer;
use tokio::task::JoinSet;

use super::faults::{CODES, behind_the_shim, describe, expected, is_a_sentence};
use super::{PATIENCE, config, create, secret, sign, token, worker};

/// Every function that initialising calls, and needs.
const FUNCTIONS: [&str; 9] = [
    "C_GetInterface",
    "C_Initialize",
    "C_GetSlotList",
    "C_GetTokenInfo",
    "C_InitToken",
    "C_OpenSession",
    "C_Login",
    "C_InitPIN",
    "C_Logout",
];
/// What those that are given a PIN may say of it.
const PIN_CODES: [u64; 5] =
    [CKR_PIN_INCORRECT, CKR_PIN_LOCKED, CKR_PIN_EXPIRED, CKR_PIN_INVALID, CKR_PIN_LEN_RANGE];
/// How long initialising may take where a call hangs.
const DEADLINE: Duration = Duration::from_secs(3);

fn new_token(peer: &Peer) -> NewToken {
    NewToken {
        module: peer.module.clone(),
        environment: peer.environment.clone(),
        label: peer.label.to_owned(),
        so_pin: secret(peer.so_pin),
        user_pin: secret(peer.user_pin),
        deadline: PATIENCE,
    }
}

#[tokio::test]
async fn a_blank_token_is_initialised_once_and_keeps_its_keys() {
    for (blank, algorithm) in
        [(Peer::blank_kryoptic as fn(&_) -> _, Algorithm::MlDsa65), (Peer::blank_softhsm, Algorithm::EcP256)]
    {
        let dir = tempfile::tempdir().unwrap();
        let peer = blank(dir.path()).unwrap();
        let new = new_token(&peer);
        assert_eq!(init_token(&worker(), &new).await, Ok(Provisioned::Initialised));
        let token = token(&config(&peer));
        let key = create(&token, algorithm).await;
        assert_eq!(init_token(&worker(), &new).await, Ok(Provisioned::Existing));
        sign(&token, &key, b"still here").await;
    }
}

#[tokio::test]
async fn a_token_of_another_label_is_never_initialised_anew() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::kryoptic(dir.path()).unwrap();
    let mut new = new_token(&peer);
    new.label = "another".into();
    let refusal = init_token(&worker(), &new).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::TokenAbsent);
    assert!(refusal.message.contains("\"field-kit\""), "{refusal}");
    create(&token(&config(&peer)), Algorithm::MlDsa44).await;
}

#[tokio::test]
async fn a_token_is_found_by_serial_number_too() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::softhsm(dir.path()).unwrap();
    let mut config = config(&peer);
    config.token = TokenName::Serial("no such".into());
    let absent = token(&config).supports(Algorithm::EcP256).await.unwrap_err();
    let (_, serial) = absent.message.split_once("(serial number \"").unwrap();
    config.token = TokenName::Serial(serial.split('"').next().unwrap().to_owned());
    create(&token(&config), Algorithm::EcP256).await;
}

/// The PIN of one would cost the other a try.
#[tokio::test]
async fn of_two_tokens_of_a_label_none_is_shown_a_pin_until_one_is_named_by_serial_number() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::softhsm(dir.path()).unwrap();
    let faults = Faults::new(&dir.path().join("faults")).unwrap();
    let config = behind_the_shim(&faults, config(&peer));
    let shown = async || {
        let (module, environment) = (&config.module, &config.environment);
        let tokens = list_tokens(&worker(), module, environment, &config.mechanisms, PATIENCE).await.unwrap();
        let ready = tokens.into_iter().filter(|token| token.state == TokenState::Ready);
        ready.map(|token| token.serial).collect::<Vec<_>>()
    };
    let first = shown().await;
    peer.add_twin("another-pin").unwrap();
    let serials = shown().await;
    assert_eq!((first.len(), serials.len()), (1, 2), "{serials:?}");

    faults.inject("C_Login", Fault::always(Action::Pass)).unwrap();
    let vague = token(&config);
    for _ in 0..3 {
        let refusal = vague.delete(&[7; 16]).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::TokenAbsent);
        assert!(serials.iter().all(|serial| refusal.message.contains(serial)), "{refusal}");
        assert!(refusal.message.contains("Name one of them by its serial number"), "{refusal}");
    }
    let refusal = init_token(&worker(), &new_token(&peer)).await.unwrap_err();
    assert!(refusal.message.contains("shows 2 such tokens"), "{refusal}");
    assert_eq!(faults.calls("C_Login").unwrap(), 0);

    let mut named = config.clone();
    named.token = TokenName::Serial(first[0].clone());
    create(&token(&named), Algorithm::EcP256).await;
}

#[tokio::test]
async fn labels_and_pins_out_of_bounds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::blank_softhsm(dir.path()).unwrap();
    let long = NewToken { label: "x".repeat(33), ..new_token(&peer) };
    let no_pin = NewToken { user_pin: secret(""), ..new_token(&peer) };
    for bad in [long, no_pin] {
        assert_eq!(init_token(&worker(), &bad).await.unwrap_err().reason, Reason::BadRequest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initialising_that_any_code_stops_is_told_and_done_when_it_is_run_again() {
    for_every_function(&FUNCTIONS, &CODES.map(|code| Fault::always(Action::Return(code))), |fault, told| {
        expected(fault.action).contains(&told.reason)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_that_initialising_presents_is_presented_once() {
    let refusals = PIN_CODES.map(|code| Fault::always(Action::Return(code)));
    for_every_function(&["C_InitToken", "C_Login", "C_InitPIN"], &refusals, |_, told| {
        told.reason == Reason::TokenLockedOut
    })
    .await;
}

/// Also where the token has carried out what the module crashes in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_while_initialising_is_told_and_the_token_is_finished_by_the_next() {
    let crashes = [Fault::once(Action::Abort), Fault::once(Action::Segfault).after()];
    for_every_function(&FUNCTIONS, &crashes, |_, told| {
        told.reason == Reason::TokenInterrupted && told.message.contains("half-initialised. Try again")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initialising_that_hangs_ends_at_its_deadline_and_is_done_when_it_is_run_again() {
    for_every_function(&FUNCTIONS, &[Fault::once(Action::Hang)], |_, told| {
        told.reason == Reason::DeadlineExceeded
    })
    .await;
}

/// Initialises blank tokens with each fault in each function. It must be told as `right` says, and the same again,
/// without the fault, must leave a token that serves.
async fn for_every_function(
    functions: &[&'static str],
    faults: &[Fault],
    right: fn(Fault, &Failure) -> bool,
) {
    let mut running = JoinSet::new();
    for function in functions.iter().copied() {
        let faults = faults.to_vec();
        running.spawn(async move {
            let mut wrong = Vec::new();
            for fault in faults {
                if let Err(why) = initialise_with(function, fault, right).await {
                    wrong.push(format!("{function}, {fault}: {why}"));
                }
            }
            wrong
        });
    }
    let wrong = running.join_all().await.concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn initialise_with(
    function: &str,
    fault: Fault,
    right: fn(Fault, &Failure) -> bool,
) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::blank_softhsm(dir.path()).unwrap();
    let faults = Faults::new(&dir.path().join("faults")).unwrap();
    let mut new = new_token(&peer);
    new.environment.extend(faults.environment(&new.module));
    new.module = fault_shim::module().unwrap();
    if fault.action == Action::Hang {
        new.deadline = DEADLINE;
    }
    faults.inject(function, fault).unwrap();
    match init_token(&worker(), &new).await {
        Ok(done) => return Err(format!("nobody was told: {done:?}")),
        Err(told) if is_a_sentence(&told) && right(fault, &told) => {}
        Err(told) => return Err(describe(&told)),
    }
    let calls = faults.calls(function).unwrap();
    if calls != 1 && ["C_InitToken", "C_Login", "C_InitPIN"].contains(&function) {
        return Err(format!("it was called {calls} times"));
    }
    faults.lift(function).unwrap();
    new.deadline = PATIENCE;
    init_token(&worker(), &new).await.map_err(|still| format!("again, without it: {}", describe(&still)))?;
    let token = token(&config(&peer));
    sign(&token, &create(&token, Algorithm::EcP256).await, b"m").await;
    Ok(())
}
