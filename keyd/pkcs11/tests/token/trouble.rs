//! Modules that hang, crash again and again, or give wrong bytes.

use std::time::Duration;

use fault_shim::{Action, Fault};
use keyd_core::{Algorithm, Failure, Reason, Sealer, SignInput, Vault};
use keyd_pkcs11::Token;
use tokio::time::{Instant, sleep};

use super::faults::{Bench, Use};
use super::{secret, sign};

/// How long a call may take in these tests.
const DEADLINE: Duration = Duration::from_secs(3);

async fn sign_once(bench: &Bench, token: &Token) -> Result<Vec<u8>, Failure> {
    token.sign(&bench.key.handle, Algorithm::EcP256, SignInput::Message(b"m")).await
}

async fn create_once(token: &Token) -> Result<(), Failure> {
    token.create(&"n/new".parse().unwrap(), Algorithm::EcP256).await.map(drop)
}

/// One call hangs in `function`; three others go on using the key until after the worker was replaced.
async fn one_call_hangs(
    what: Use,
    function: &str,
    victim: impl AsyncFn(&Bench, &Token) -> Result<(), Failure>,
) {
    let mut bench = Bench::new(what).await;
    bench.config.call_deadline = DEADLINE;
    let token = bench.token();
    bench.make_use(&token).await.unwrap();
    let hung = token.worker_pid();
    bench.inject(function, Fault::once(Action::Hang));
    let start = Instant::now();
    let victim = async {
        let late = victim(&bench, &token).await.unwrap_err();
        assert_eq!(late.reason, Reason::DeadlineExceeded, "{late}");
        assert!((DEADLINE..DEADLINE * 2).contains(&start.elapsed()), "{:?}", start.elapsed());
    };
    let others = async || {
        while bench.calls(function) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        while start.elapsed() < DEADLINE + Duration::from_secs(1) {
            let one = Instant::now();
            bench.make_use(&token).await.unwrap();
            assert!(one.elapsed() < DEADLINE / 2, "another waited {:?}", one.elapsed());
        }
    };
    tokio::join!(victim, others(), others(), others());
    assert_ne!(token.worker_pid(), hung);
    bench.faults.lift(function).unwrap();
    create_once(&token).await.unwrap();
    assert_eq!(bench.objects().await, 4, "two keys, both halves");
}

#[tokio::test]
async fn a_signature_that_hangs_costs_its_caller_a_deadline_and_nobody_else_anything() {
    for what in [Use::Sign, Use::SignPkcs1, Use::SignPss] {
        one_call_hangs(what, "C_Sign", Bench::make_use).await;
    }
}

#[tokio::test]
async fn a_decapsulation_that_hangs_costs_its_caller_a_deadline_and_nobody_else_anything() {
    one_call_hangs(Use::Decapsulate, "C_DecapsulateKey", Bench::make_use).await;
}

#[tokio::test]
async fn a_key_whose_making_hangs_costs_its_caller_a_deadline_and_nobody_else_anything() {
    one_call_hangs(Use::Sign, "C_GenerateKeyPair", async |_, token| create_once(token).await).await;
}

#[tokio::test]
async fn a_module_that_always_crashes_is_told_and_not_loaded_in_a_storm() {
    let bench = Bench::new(Use::Sign).await;
    let token = bench.token();
    bench.inject("C_Sign", Fault::always(Action::Segfault));
    bench.inject("C_Initialize", Fault::always(Action::Pass));
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let died = sign_once(&bench, &token).await.unwrap_err();
        assert_eq!(died.reason, Reason::TokenInterrupted, "{died}");
        assert!(died.message.contains("Try again"), "{died}");
    }
    let loads = bench.calls("C_Initialize");
    assert!((2..12).contains(&loads), "loaded {loads} times");
    bench.faults.lift("C_Sign").unwrap();
    sign(&token, &bench.key, b"m").await;
}

#[tokio::test]
async fn a_slow_module_is_waited_for() {
    let bench = Bench::new(Use::Sign).await;
    let token = bench.token();
    bench.inject("C_Sign", Fault::always(Action::Delay(Duration::from_millis(300))));
    let start = Instant::now();
    tokio::join!(sign(&token, &bench.key, b"a"), sign(&token, &bench.key, b"b"));
    // C_Sign is called for the length, too.
    assert!(start.elapsed() < Duration::from_millis(1100), "not one after the other: {:?}", start.elapsed());
}

#[tokio::test]
async fn wrong_bytes_make_neither_a_key_nor_a_blob() {
    let bench = Bench::new(Use::Sign).await;
    let token = bench.token();
    bench.inject("C_GetAttributeValue", Fault::always(Action::Garble));
    let refusal = create_once(&token).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::TokenFailed, "{refusal}");
    assert_eq!(bench.objects().await, 2, "nothing is left of it");
    bench.faults.lift("C_GetAttributeValue").unwrap();
    for function in ["C_Encrypt", "C_Decrypt"] {
        bench.inject(function, Fault::always(Action::Garble));
        let refusal = token.seal(&secret("seed"), b"c").await.unwrap_err();
        assert_eq!(refusal.reason, Reason::Integrity, "{function}: {refusal}");
        bench.faults.lift(function).unwrap();
    }
    token.seal(&secret("seed"), b"c").await.unwrap();
}

/// What it decapsulates later, nobody can tell right from wrong.
#[tokio::test]
async fn a_token_that_decapsulates_wrong_keeps_no_key() {
    let bench = Bench::new(Use::CreateMlKem).await;
    let token = bench.token();
    // It is asked whether the key may leave, then for the public key, then for the shared secret.
    bench.inject("C_GetAttributeValue", Fault::always(Action::Garble).skipping(3));
    let refusal = bench.make_use(&token).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::Integrity, "{refusal}");
    assert!(refusal.message.contains("does not decapsulate what was encapsulated"), "{refusal}");
    bench.faults.lift("C_GetAttributeValue").unwrap();
    assert_eq!(bench.objects().await, 2, "nothing is left of it");
    bench.make_use(&token).await.unwrap();
}

#[tokio::test]
async fn a_key_that_can_be_neither_used_nor_removed_is_named() {
    let bench = Bench::new(Use::Sign).await;
    let token = bench.token();
    bench.inject("C_GetAttributeValue", Fault::always(Action::Garble));
    bench.inject("C_DestroyObject", Fault::always(Action::Return(fault_shim::code::CKR_GENERAL_ERROR)));
    let left = create_once(&token).await.unwrap_err();
    assert!(left.message.contains("could not be removed (C_DestroyObject gave CKR_GENERAL_ERROR)"), "{left}");
    assert_eq!(bench.objects().await, 4);
}
