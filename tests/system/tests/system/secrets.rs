//! Where secrets are not: in core dumps and swap, in arguments and environment, on the TPM's bus.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use fault_shim::code::CKR_DEVICE_REMOVED;
use fault_shim::{Action, Fault, Faults};
use keyd_core::{Protection, Reason};
use nix::unistd::Pid;
use peers::interposer::{Interposer, Meddle, UNSEAL};
use peers::process::{can_be_dumped, without_root};
use peers::swtpm::Swtpm;
use peers::token::Token;
use system::binary;
use system::keyd::{Keyd, configure, namespaces, token_table, token_with_pin, write_private};
use tokio::process::Command;
use tokio::time::Instant;

use crate::faults::behind_the_shim;
use crate::refusals::{FAILED, Refusal, UNREACHABLE, refusal, refused_start};

#[tokio::test]
async fn neither_keyd_nor_its_worker_can_be_dumped() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let tables = token_with_pin(&token, dir.path()).unwrap() + &namespaces(&[("hsm", &[Protection::Hsm])]);
    let config = configure(dir.path(), &tables).unwrap();
    let words = without_root(&binary("keyd").unwrap(), dir.path()).unwrap();
    let mut serve = Command::new(&words[0]);
    serve.args(&words[1..]).args(["serve", "--config"]).arg(&config);
    let keyd = Keyd::by(&mut serve, dir.path().join("keyd.sock"), &dir.path().join("log")).await.unwrap();
    keyd.json(&["key", "create", "hsm/a", "--algorithm", "ec-p256"]).await.unwrap();
    for (what, pid) in [("keyd", keyd.process.pid().unwrap()), ("its worker", keyd.worker().unwrap())] {
        assert!(!can_be_dumped(pid).unwrap(), "{what} can be dumped");
    }
    keyd.stop().await.unwrap();
}

#[tokio::test]
async fn keyd_says_truly_whether_its_memory_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = Keyd::start(dir.path(), &namespaces(&[("dev", &[Protection::Software])])).await.unwrap();
    let said = keyd.json(&["status"]).await.unwrap()["memory_locked"].as_bool().unwrap();
    assert_eq!(said, locked(keyd.process.pid().unwrap()) > 0);
}

/// Locked memory, in kB.
fn locked(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_pin_that_the_tpm_sealed_opens_the_token_and_is_nowhere_to_be_seen() {
    let dir = tempfile::tempdir().unwrap();
    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    let bus = Interposer::before(&tpm).unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let (clear, sealed) = (dir.path().join("pin"), dir.path().join("pin.sealed"));
    write_private(&clear, token.user_pin).unwrap();
    let table = token_table(&token, &clear)
        .replace("pin_file", "pin_sealed")
        .replace(&format!("{clear:?}"), &format!("{sealed:?}"));
    let tpm_table = format!("[tpm]\ntcti = {:?}\nseal_to = \"pcrs\"\npcrs = [16]\n", bus.tcti());
    let tables = [("hsm", &[Protection::Hsm][..]), ("soft", &[Protection::Software])];
    let config = table + &tpm_table + &namespaces(&tables);
    let file = configure(dir.path(), &config).unwrap();
    refused_start(&file).await.is(FAILED, Reason::BadConfig, &["pin.sealed", "cannot read it"]);

    let seal = async || {
        let mut seal = Command::new(binary("keyd").unwrap());
        seal.args(["--json", "token", "seal-pin", "--config"]).arg(&file).arg("--in").arg(&clear);
        seal.arg("--out").arg(&sealed).output().await.unwrap()
    };
    let output = seal().await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(&clear).unwrap();
    assert_eq!(fs::metadata(&sealed).unwrap().mode() & 0o777, 0o600);

    let keyd = Keyd::restart(dir.path()).await.unwrap();
    keyd.json(&["key", "create", "hsm/a", "--algorithm", "ec-p256"]).await.unwrap();
    let pin = token.user_pin.as_bytes();
    let holds_pin = |bytes: &[u8]| bytes.windows(pin.len()).any(|window| window == pin);
    for pid in [keyd.process.pid().unwrap(), keyd.worker().unwrap()] {
        for file in ["cmdline", "environ"] {
            assert!(!holds_pin(&fs::read(format!("/proc/{pid}/{file}")).unwrap()), "{file} of {pid}");
        }
    }
    assert!(!holds_pin(&fs::read(&sealed).unwrap()) && !bus.saw(pin));
    assert!(!holds_pin(keyd.process.log().unwrap().as_bytes()));

    // Another state: named while keyd runs, and at the next start.
    bus.hang_up();
    let digest = format!("16:sha256={}", "07".repeat(32));
    assert!(tpm.tool("tpm2_pcrextend").arg(digest).status().unwrap().success());
    let doctor = keyd.output(&["--json", "doctor"]).await.unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("sealed PIN") && said.contains("keyd token seal-pin"), "{said}");
    keyd.stop().await.unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let words = ["pin.sealed", "PCR 16 was 0000", "keyd token seal-pin"];
    let create = ["key", "create", "hsm/b", "--algorithm", "ec-p256"];
    refusal(&keyd, &create).await.is(FAILED, Reason::PcrChanged, &words);
    let device = &keyd.json(&["status"]).await.unwrap()["devices"][0];
    assert!(device["state"] != "ok" && device["detail"].as_str().unwrap().contains(words[1]), "{device}");
    keyd.json(&["key", "create", "soft/a"]).await.unwrap();

    write_private(&clear, &"9".repeat(65)).unwrap();
    Refusal::of(&seal().await).is(FAILED, Reason::BadRequest, &["1 to 64 bytes"]);
    write_private(&clear, token.user_pin).unwrap();
    assert!(seal().await.status.success());

    keyd.json(&create).await.unwrap();

    // A TPM that keeps the PIN's caller waiting is not taken for a token that does.
    keyd.stop().await.unwrap();
    let impatient = config.replace("[token]\n", "[token]\ncall_deadline_ms = 1000\n");
    assert_ne!(impatient, config);
    configure(dir.path(), &impatient).unwrap();
    let unsealed = bus.count(UNSEAL);
    bus.meddle(Meddle::Delay(UNSEAL, Duration::from_secs(8)));
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let create = ["key", "create", "hsm/c", "--algorithm", "ec-p256"];
    let words = ["no PIN within 1s", "keyd status"];
    refusal(&keyd, &create).await.is(UNREACHABLE, Reason::DeadlineExceeded, &words);
    // It goes on meanwhile, and whoever comes later has the PIN.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !keyd.output(&create).await.unwrap().status.success() {
        assert!(Instant::now() < deadline, "the PIN never came");
    }
    assert_eq!(bus.count(UNSEAL), unsealed + 1, "asked for once");
}

#[tokio::test]
async fn a_wrong_pin_that_the_tpm_sealed_is_tried_once() {
    let dir = tempfile::tempdir().unwrap();
    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    let faults = Faults::new(&dir.path().join("faults")).unwrap();
    let token = behind_the_shim(Token::kryoptic(dir.path()).unwrap(), &faults);
    let (clear, sealed) = (dir.path().join("pin"), dir.path().join("pin.sealed"));
    write_private(&clear, "a-wrong-pin").unwrap();
    let table = token_table(&token, &sealed).replace("pin_file", "pin_sealed");
    let tpm_table = format!("[tpm]\ntcti = {:?}\n", tpm.tcti());
    let config = table + &tpm_table + &namespaces(&[("hsm", &[Protection::Hsm])]);
    let file = configure(dir.path(), &config).unwrap();
    let mut seal = Command::new(binary("keyd").unwrap());
    seal.args(["token", "seal-pin", "--config"]).arg(&file).arg("--in").arg(&clear).arg("--out").arg(&sealed);
    assert!(seal.output().await.unwrap().status.success());

    // The token judges the PIN, and the module says something else.
    faults.inject("C_Login", Fault::always(Action::Return(CKR_DEVICE_REMOVED)).after()).unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    for _ in 0..4 {
        let refused = keyd.output(&["--json", "key", "create", "hsm/a"]).await.unwrap();
        let words = ["did not say whether the PIN is right", "CKR_DEVICE_REMOVED", "restart keyd"];
        Refusal::of(&refused).is(FAILED, Reason::TokenLockedOut, &words);
    }
    let device = &keyd.json(&["status"]).await.unwrap()["devices"][0];
    assert_eq!(device["state"], "locked out", "{device}");
    assert_eq!(faults.calls("C_Login").unwrap(), 1);
}
