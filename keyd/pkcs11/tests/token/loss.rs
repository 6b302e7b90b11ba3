//! Workers that die or hang, and tokens that are not there.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyd_core::{Algorithm, HealthState, Reason, SignInput, Vault};
use keyd_pkcs11::{Token, TokenName, WorkerCommand};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peers::process::{can_be_dumped, without_root};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, config, create, kryoptic, sign, softhsm, token, worker};

fn signal(token: &Token, signal: Signal) -> u32 {
    let pid = token.worker_pid().unwrap();
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    pid
}

/// Stops the worker, as a hung module would.
async fn freeze(token: &Token) -> u32 {
    let pid = token.worker_pid().unwrap();
    peers::process::freeze(Pid::from_raw(pid.try_into().unwrap())).await.unwrap();
    pid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_signature_is_lost_when_the_worker_is_killed_under_load() {
    let (_dir, config) = kryoptic();
    let token = Arc::new(token(&config));
    let key = Arc::new(create(&token, Algorithm::MlDsa65).await);
    let done: Arc<[AtomicUsize; 4]> = Arc::default();
    let clients: Vec<_> = (0..done.len())
        .map(|client| {
            let (token, key, done) = (token.clone(), key.clone(), done.clone());
            tokio::spawn(async move {
                for n in 0..100 {
                    sign(&token, &key, format!("client {client}, message {n}").as_bytes()).await;
                    done[client].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let (mut killed, start) = (Vec::new(), Instant::now());
    for round in 1..=3 {
        // A call is made twice and no more, so each client gets past the call that lost its worker last.
        while done.iter().any(|count| count.load(Ordering::Relaxed) < 10 * round) {
            assert!(start.elapsed() < PATIENCE, "a client is stuck");
            sleep(Duration::from_millis(1)).await;
        }
        killed.push(signal(&token, Signal::SIGKILL));
    }
    for client in clients {
        client.await.unwrap();
    }
    assert!(!killed.contains(&token.worker_pid().unwrap()), "another worker serves");
}

#[tokio::test]
async fn a_hung_worker_costs_a_deadline_and_is_replaced() {
    let (_dir, mut config) = kryoptic();
    config.call_deadline = Duration::from_secs(3);
    let token = token(&config);
    let key = create(&token, Algorithm::MlDsa44).await;
    let hung = freeze(&token).await;
    let start = Instant::now();
    let late = token.sign(&key.handle, Algorithm::MlDsa44, SignInput::Message(b"m")).await.unwrap_err();
    assert_eq!(late.reason, Reason::DeadlineExceeded, "{late}");
    assert!((3..6).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    create(&token, Algorithm::MlDsa44).await;
    sign(&token, &key, b"the next worker").await;
    assert_ne!(token.worker_pid(), Some(hung));
}

#[tokio::test]
async fn a_hung_worker_is_replaced_also_when_its_callers_do_not_wait() {
    let (_dir, mut config) = kryoptic();
    config.call_deadline = Duration::from_secs(3);
    let token = token(&config);
    let key = create(&token, Algorithm::MlDsa44).await;
    let hung = freeze(&token).await;
    let call = token.sign(&key.handle, Algorithm::MlDsa44, SignInput::Message(b"m"));
    tokio::time::timeout(Duration::from_millis(100), call).await.unwrap_err();
    assert_eq!(token.worker_pid(), Some(hung), "it has its time");
    sleep(config.call_deadline).await;
    assert_eq!(token.worker_pid(), None, "and no more");
    sign(&token, &key, b"the next worker").await;
}

#[tokio::test]
async fn a_key_is_not_made_twice_when_the_worker_dies_over_it() {
    let (_dir, config) = kryoptic();
    let token = token(&config);
    create(&token, Algorithm::MlDsa44).await;
    freeze(&token).await;
    let id = "spire-server/x509-CA-B".parse().unwrap();
    let (made, ()) = tokio::join!(token.create(&id, Algorithm::MlDsa44), async {
        sleep(Duration::from_millis(200)).await;
        signal(&token, Signal::SIGKILL);
    });
    sign(&token, &made.unwrap(), b"made by the next worker").await;
    assert_eq!(token.list_objects().await.unwrap().len(), 4, "two keys, both halves");
}

/// As libtss2 opens its TPM: without O_CLOEXEC.
#[tokio::test]
async fn a_worker_keeps_nothing_that_its_parent_has_open() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let (_dir, config) = softhsm();
    let token = token(&config);
    token.supports(Algorithm::EcP256).await.unwrap();
    assert!(token.worker_pid().is_some());
    drop(writer);
    let start = Instant::now();
    let closed = || {
        let mut polled = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::ZERO).unwrap() > 0
    };
    // Programs that other tests run meanwhile have it too, until they end.
    while !closed() {
        assert!(start.elapsed() < PATIENCE, "the worker has the pipe");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_worker_ends_with_its_token() {
    let (_dir, config) = softhsm();
    let token = token(&config);
    token.supports(Algorithm::EcP256).await.unwrap();
    let pid = token.worker_pid().unwrap();
    drop(token);
    await_end(pid).await;
}

/// Not a test: a process that dies with a worker at hand.
#[tokio::test]
#[ignore = "the process that the next test kills"]
async fn process_with_a_worker() {
    let dir = std::env::current_dir().unwrap();
    let token = token(&config(&peers::token::Token::blank_softhsm(&dir).unwrap()));
    token.supports(Algorithm::EcP256).await.unwrap();
    std::fs::write(dir.join("pid.new"), token.worker_pid().unwrap().to_string()).unwrap();
    std::fs::rename(dir.join("pid.new"), dir.join("pid")).unwrap();
    sleep(PATIENCE).await;
}

#[tokio::test]
async fn a_worker_does_not_outlive_a_process_that_was_killed() {
    let (dir, _config) = softhsm();
    let mut process = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "loss::process_with_a_worker", "--ignored"])
        .current_dir(dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let pid = loop {
        if let Ok(pid) = std::fs::read_to_string(dir.path().join("pid")) {
            break pid.parse().unwrap();
        }
        assert!(start.elapsed() < PATIENCE, "no worker was started");
        sleep(Duration::from_millis(10)).await;
    };
    process.kill().unwrap();
    process.wait().unwrap();
    await_end(pid).await;
}

/// Waits until the process is gone. One whose parent does not reap it is gone too.
async fn await_end(pid: u32) {
    let start = Instant::now();
    let lives = || {
        std::fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| !status.contains("State:\tZ"))
    };
    while lives() {
        assert!(start.elapsed() < Duration::from_secs(5), "the worker lives on");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_worker_cannot_be_dumped() {
    let (dir, config) = softhsm();
    let WorkerCommand { program, args } = worker();
    let words = without_root(&program, dir.path()).unwrap();
    let mut words = words.into_iter().map(|word| word.into_string().unwrap());
    let program = words.next().unwrap().into();
    let token = Token::new(config, WorkerCommand { program, args: words.chain(args).collect() }).unwrap();
    token.supports(Algorithm::EcP256).await.unwrap();
    let pid = Pid::from_raw(token.worker_pid().unwrap().try_into().unwrap());
    assert!(!can_be_dumped(pid).unwrap());
}

#[tokio::test]
async fn a_missing_module_is_named() {
    let (_dir, mut config) = softhsm();
    config.module = "/nonexistent/libvendor.so".into();
    let token = token(&config);
    for _ in 0..3 {
        let absent = token.supports(Algorithm::EcP256).await.unwrap_err();
        assert_eq!(absent.reason, Reason::TokenAbsent);
        assert!(absent.message.contains("/nonexistent/libvendor.so"), "{absent}");
    }
    assert_eq!(Vault::health(&token).await.state, HealthState::Absent);
}

#[tokio::test]
async fn a_wrong_label_is_told_with_those_that_there_are() {
    let (_dir, mut config) = softhsm();
    config.token = TokenName::Label("field-kat".into());
    let absent = token(&config).supports(Algorithm::EcP256).await.unwrap_err();
    assert_eq!(absent.reason, Reason::TokenAbsent);
    assert!(absent.message.contains("\"field-kat\"") && absent.message.contains("\"field-kit\""), "{absent}");
}

#[tokio::test]
async fn a_token_that_comes_back_is_found_without_a_restart() {
    let (dir, config) = kryoptic();
    let (settings, away) = (dir.path().join("kryoptic.conf"), dir.path().join("away"));
    std::fs::rename(&settings, &away).unwrap();
    let token = token(&config);
    for _ in 0..3 {
        let absent = token.supports(Algorithm::MlDsa65).await.unwrap_err();
        assert_eq!(absent.reason, Reason::TokenAbsent);
        assert!(absent.message.contains("none at all"), "{absent}");
    }
    std::fs::rename(&away, &settings).unwrap();
    let start = Instant::now();
    while token.supports(Algorithm::MlDsa65).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "still not found");
        sleep(Duration::from_millis(50)).await;
    }
    let key = create(&token, Algorithm::MlDsa65).await;
    sign(&token, &key, b"back").await;
}

#[tokio::test]
async fn a_worker_that_does_not_last_is_not_started_in_a_storm() {
    let (_dir, mut config) = softhsm();
    config.call_deadline = Duration::from_secs(5);
    let starts = _dir.path().join("starts");
    let script = format!("echo started >> {}", starts.display());
    let worker = WorkerCommand { program: "/bin/sh".into(), args: vec!["-c".into(), script] };
    let token = Token::new(config, worker).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        assert_eq!(token.delete(&[7; 16]).await.unwrap_err().reason, Reason::TokenInterrupted);
    }
    let count = std::fs::read_to_string(&starts).unwrap().lines().count();
    assert!((2..10).contains(&count), "{count} starts");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let (_dir, config) = softhsm();
    let worker = WorkerCommand { program: "/nonexistent/keyd".into(), args: vec![] };
    let failure = Token::new(config, worker).unwrap().delete(&[7; 16]).await.unwrap_err();
    assert!(failure.message.contains("/nonexistent/keyd"), "{failure}");
}
