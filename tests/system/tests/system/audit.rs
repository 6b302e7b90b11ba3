//! The audit log of a running keyd, after crashes, under a full disk, and when somebody changed it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyd_core::{Protection, Reason, SignInput};
use peers::swtpm::Swtpm;
use serde_json::Value;
use system::keyd::{Keyd, configure, namespaces};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::refusals::{FAILED, NO_SUCH_KEY, Refusal, refused_start};

/// How long the first checkpoint may take.
const SIGNED: Duration = Duration::from_secs(20);

async fn software() -> (TempDir, Keyd) {
    let dir = tempfile::tempdir().unwrap();
    let user = nix::unistd::geteuid();
    let config = namespaces(&[("dev", &[Protection::Software])])
        + &format!(
            "[[namespace]]\nname = \"locked\"\nprotections = [\"software\"]\n[[allow]]\nusers = [{user}]\n\
             namespaces = [\"locked\"]\noperations = [\"list\"]\n"
        );
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    (dir, keyd)
}

async fn records(keyd: &Keyd, args: &[&str]) -> Vec<Value> {
    let shown = keyd.json(&[&["audit", "show"], args].concat()).await.unwrap();
    shown["records"].as_array().unwrap().clone()
}

fn events(records: &[Value]) -> Vec<&str> {
    records.iter().map(|r| r["event"].as_str().unwrap()).collect()
}

/// The log's only file.
fn file(dir: &Path) -> PathBuf {
    dir.join("state/audit/audit-000000000001.log")
}

async fn offline(args: &[&str]) -> std::process::Output {
    Command::new(system::binary("keyd").unwrap()).arg("--json").args(args).output().await.unwrap()
}

#[tokio::test]
async fn the_life_of_a_key_is_recorded_signed_and_proved() {
    let (dir, keyd) = software().await;
    keyd.json(&["key", "create", "dev/a"]).await.unwrap();
    keyd.json(&["key", "rotate", "dev/a"]).await.unwrap();
    keyd.json(&["key", "delete", "dev/a"]).await.unwrap();
    keyd.json(&["key", "create", "dev/b", "--algorithm", "ec-p256"]).await.unwrap();
    let denied = Refusal::of(&keyd.output(&["--json", "key", "create", "locked/c"]).await.unwrap());
    assert_eq!(denied.reason, Reason::Denied.name());

    let of_a = records(&keyd, &["--key", "dev/a"]).await;
    assert_eq!(events(&of_a), ["key-created", "key-rotated", "key-deleted"]);
    let me = u64::from(nix::unistd::geteuid().as_raw());
    for (record, version) in of_a.iter().zip([1, 2, 2]) {
        assert_eq!(
            (record["uid"].as_u64(), record["version"].as_u64()),
            (Some(me), Some(version)),
            "{record}"
        );
        assert_eq!(
            (&record["protection"], &record["result"]),
            (&"software".into(), &"ok".into()),
            "{record}"
        );
        assert!(record["pid"].as_i64().unwrap() > 1);
    }
    assert_ne!(of_a[0]["fingerprint"], of_a[1]["fingerprint"]);
    assert_eq!(of_a[1]["fingerprint"], of_a[2]["fingerprint"]);
    let denied = records(&keyd, &["--event", "denied"]).await;
    assert_eq!(denied.len(), 1);
    assert_eq!((&denied[0]["operation"], &denied[0]["namespace"]), (&"create".into(), &"locked".into()));
    let last = records(&keyd, &[]).await.last().unwrap()["time"].as_i64().unwrap();
    assert!(records(&keyd, &["--since", &(last + 1).to_string()]).await.is_empty());

    let online = keyd.json(&["audit", "verify"]).await.unwrap();
    assert_eq!(online["signed_through"].as_u64().unwrap() + 1, online["last"].as_u64().unwrap(), "{online}");
    assert_eq!(online["trouble"], "");
    let pem = dir.path().join("audit.pem").display().to_string();
    assert!(keyd.output(&["audit", "key", "--out", &pem]).await.unwrap().status.success());
    keyd.stop().await.unwrap();

    // Nobody needs keyd to prove the log, and the key that was kept elsewhere is the one that counts.
    let whole = dir.path().join("state/audit").display().to_string();
    for path in [&whole, &file(dir.path()).display().to_string()] {
        let proved = offline(&["audit", "verify", "--file", path, "--key", &pem]).await;
        assert!(proved.status.success(), "{}", String::from_utf8_lossy(&proved.stderr));
        let proved: Value = serde_json::from_slice(&proved.stdout).unwrap();
        assert_eq!(
            proved["signed_through"].as_u64().unwrap() + 1,
            proved["last"].as_u64().unwrap(),
            "{proved}"
        );
    }
    let shown = offline(&["audit", "show", "--file", &whole]).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let shown = events(shown["records"].as_array().unwrap()).join(" ");
    assert!(shown.starts_with("segment started"), "{shown}");
    assert!(shown.ends_with("stopped checkpoint"), "{shown}");
}

#[tokio::test]
async fn a_device_that_holds_no_key_is_recorded_whoever_asked_it() {
    let dir = tempfile::tempdir().unwrap();
    let tables: &[(&str, &[Protection])] =
        &[("sealed", &[Protection::TpmSealed]), ("either", &[Protection::TpmSealed, Protection::Software])];
    let absent =
        "[audit]\nprotections = [\"software\"]\n[tpm]\ntcti = \"device:/nonexistent\"\ncounter = false\n";
    let keyd = Keyd::start(dir.path(), &(absent.to_owned() + &namespaces(tables))).await.unwrap();
    let refused = Refusal::of(&keyd.output(&["--json", "key", "create", "sealed/a"]).await.unwrap());
    assert_eq!(refused.reason, Reason::TpmAbsent.name());
    keyd.json(&["key", "create", "either/a"]).await.unwrap();
    let moved = ["--json", "key", "migrate", "either/a", "--to", "tpm-sealed"];
    assert_eq!(Refusal::of(&keyd.output(&moved).await.unwrap()).reason, Reason::TpmAbsent.name());

    for (key, expected) in [
        ("sealed/a", &[("seal-failed", "TPM_ABSENT")][..]),
        ("either/a", &[("fallback", "TPM_ABSENT"), ("key-created", "ok"), ("seal-failed", "TPM_ABSENT")]),
    ] {
        let records = records(&keyd, &["--key", key]).await;
        let told = |name| records.iter().map(|r| r[name].as_str().unwrap()).collect::<Vec<_>>();
        let told: Vec<_> = told("event").into_iter().zip(told("result")).collect();
        assert_eq!(told, expected, "{key}");
        assert!(records.iter().all(|r| r["uid"] == nix::unistd::geteuid().as_raw()), "{records:?}");
    }
}

#[tokio::test]
async fn denied_calls_are_counted_and_do_not_fill_the_disk() {
    let (dir, keyd) = software().await;
    let client = keyd.client();
    let before = fs::metadata(file(dir.path())).unwrap().len();
    for number in 0..500 {
        let id = format!("locked/k{number}").parse().unwrap();
        assert_eq!(client.delete_key(&id).await.unwrap_err().reason, Reason::Denied);
    }
    let grown = fs::metadata(file(dir.path())).unwrap().len() - before;
    assert!(grown < 20_000, "{grown} bytes; one record and a checkpoint");
    keyd.json(&["audit", "verify"]).await.unwrap();
    let counts: Vec<_> =
        records(&keyd, &["--event", "denied"]).await.iter().map(|r| r["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 499]);
}

#[tokio::test]
async fn a_torn_end_is_cut_off_and_told() {
    let (dir, keyd) = software().await;
    keyd.json(&["key", "create", "dev/a"]).await.unwrap();
    keyd.json(&["audit", "verify"]).await.unwrap();
    keyd.kill().await.unwrap();
    let log = file(dir.path());
    let mut torn = fs::read(&log).unwrap();
    torn.extend_from_slice(b"0123456789 {\"seq\":");
    fs::write(&log, torn).unwrap();
    let path = log.display().to_string();
    let before: Value =
        serde_json::from_slice(&offline(&["audit", "verify", "--file", &path]).await.stdout).unwrap();
    assert_eq!(before["torn_bytes"], 18, "{before}");
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let cut = records(&keyd, &["--event", "tail-cut"]).await;
    assert_eq!(cut.len(), 1);
    assert_eq!(cut[0]["bytes"], 18);
    assert_eq!(keyd.json(&["audit", "verify"]).await.unwrap()["tails_cut"], 1);
}

#[tokio::test]
async fn a_log_that_was_changed_or_cut_keeps_keyd_from_starting_until_a_new_one_is_begun() {
    let (dir, keyd) = software().await;
    keyd.json(&["key", "create", "dev/a"]).await.unwrap();
    keyd.json(&["audit", "verify"]).await.unwrap();
    keyd.stop().await.unwrap();
    let (log, config) = (file(dir.path()), dir.path().join("keyd.toml"));
    let whole = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let at = lines.iter().position(|l| l.contains("key-created") && l.contains("dev/a")).unwrap();

    let changed = whole.replace("\"key\":\"dev/a\"", "\"key\":\"dev/b\"");
    let without = [&lines[..at], &lines[at + 1..]].concat().join("\n") + "\n";
    for (text, words) in [(changed, "its hash is not"), (without, "stands in its place")] {
        fs::write(&log, text).unwrap();
        let place = format!("record {}: ", at + 1);
        let words = [log.to_str().unwrap(), &place, words];
        let verified = offline(&["audit", "verify", "--file", log.to_str().unwrap()]).await;
        Refusal::of(&verified).is(FAILED, Reason::Integrity, &words);
        let words = [&words[..], &["keyd audit restart"]].concat();
        refused_start(&config).await.is(FAILED, Reason::Integrity, &words);
    }
    // An earlier state of the log holds by itself; keyd knows that it went on.
    fs::write(&log, lines[..at + 1].join("\n") + "\n").unwrap();
    assert!(offline(&["audit", "verify", "--file", log.to_str().unwrap()]).await.status.success());
    refused_start(&config).await.is(FAILED, Reason::Integrity, &["missing", "keyd audit restart"]);
    fs::remove_dir_all(log.parent().unwrap()).unwrap();
    refused_start(&config).await.is(FAILED, Reason::Integrity, &["missing", "keyd audit restart"]);

    let begun = offline(&["audit", "restart", "--config", config.to_str().unwrap()]).await;
    assert!(begun.status.success(), "{}", String::from_utf8_lossy(&begun.stderr));
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let log = keyd.json(&["audit", "verify"]).await.unwrap();
    assert_eq!(log["trouble"], "", "{log}");
    let restarted = records(&keyd, &["--event", "log-restarted"]).await;
    assert!(restarted[0]["last"].as_u64().unwrap() > at as u64, "{restarted:?}");
    assert_eq!(keyd.client().list_keys(None).await.unwrap().len(), 1, "the keys are as before");
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_nothing_else() {
    let (dir, keyd) = software().await;
    let info = keyd.json(&["key", "create", "dev/a"]).await.unwrap();
    keyd.json(&["audit", "verify"]).await.unwrap();
    keyd.process.limit_files(Some(fs::metadata(file(dir.path())).unwrap().len())).await.unwrap();
    for change in [&["key", "create", "dev/b"][..], &["key", "rotate", "dev/a"], &["key", "delete", "dev/a"]]
    {
        let refused = keyd.output(&[&["--json"], change].concat()).await.unwrap();
        Refusal::of(&refused).is(FAILED, Reason::AuditFailed, &["audit-000000000001.log", "make room"]);
    }
    let (client, id) = (keyd.client(), "dev/a".parse().unwrap());
    let still = client.show_key(&id).await.unwrap();
    assert_eq!(Value::from(still.version), info["version"]);
    let signed = client.sign(&id, SignInput::Message(b"m")).await.unwrap();
    still.public_key.verify(SignInput::Message(b"m"), &signed.signature).unwrap();
    let doctor = keyd.output(&["doctor"]).await.unwrap();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("the audit log: it takes no records"));

    keyd.process.limit_files(None).await.unwrap();
    keyd.json(&["key", "rotate", "dev/a"]).await.unwrap();
    keyd.json(&["audit", "verify"]).await.unwrap();
    assert_eq!(events(&records(&keyd, &["--key", "dev/a"]).await), ["key-created", "key-rotated"]);
    let doctor = keyd.output(&["doctor"]).await.unwrap();
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
}

#[tokio::test]
async fn the_first_key_alone_is_signed_for_and_starts_and_stops_are_not() {
    let (dir, mut keyd) = software().await;
    for _ in 0..3 {
        let none = Refusal::of(&keyd.output(&["--json", "audit", "key"]).await.unwrap());
        none.is(NO_SUCH_KEY, Reason::KeyNotFound, &["no audit key yet", "keyd makes it with the first"]);
        keyd.stop().await.unwrap();
        keyd = Keyd::restart(dir.path()).await.unwrap();
    }
    assert!(records(&keyd, &["--event", "audit-key"]).await.is_empty());
    keyd.stop().await.unwrap();
    fs::remove_dir_all(dir.path().join("state")).unwrap();

    let keyd = Keyd::restart(dir.path()).await.unwrap();
    keyd.json(&["key", "create", "dev/a"]).await.unwrap();
    let log = keyd.json(&["audit", "verify"]).await.unwrap();
    assert_eq!(log["signed_through"].as_u64().unwrap() + 1, log["last"].as_u64().unwrap(), "{log}");
    let key = keyd.output(&["audit", "key"]).await.unwrap();
    assert!(String::from_utf8_lossy(&key.stdout).contains("BEGIN PUBLIC KEY"), "{key:?}");
}

#[tokio::test]
async fn a_start_that_fails_is_not_recorded_however_often_it_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let missing =
        "[tpm]\ntcti = \"device:/dev/null\"\npolicy_key = \"/nonexistent\"\npolicy_signatures = \"/s\"\n";
    let config = configure(dir.path(), missing).unwrap();
    for _ in 0..3 {
        refused_start(&config).await.is(FAILED, Reason::BadConfig, &["/nonexistent"]);
    }
    assert!(!file(dir.path()).exists());
    let keyd = Keyd::start(dir.path(), &namespaces(&[("dev", &[Protection::Software])])).await.unwrap();
    assert_eq!(events(&records(&keyd, &[]).await), ["segment", "started"]);
}

#[tokio::test]
async fn the_audit_key_is_nobodys_to_use() {
    let (_dir, keyd) = software().await;
    keyd.json(&["key", "create", "dev/a"]).await.unwrap();
    keyd.json(&["key", "delete", "dev/a"]).await.unwrap();
    let deadline = Instant::now() + SIGNED;
    while records(&keyd, &["--event", "checkpoint"]).await.is_empty() {
        assert!(Instant::now() < deadline, "no checkpoint after the first key");
        sleep(Duration::from_millis(50)).await;
    }
    let client = keyd.client();
    let id = "keyd/audit".parse().unwrap();
    for refused in [
        client.sign(&id, SignInput::Message(b"m")).await.unwrap_err(),
        client.show_key(&id).await.unwrap_err(),
        client.rotate_key(&id, None, None).await.unwrap_err(),
        client.delete_key(&id).await.unwrap_err(),
    ] {
        assert!(matches!(refused.reason, Reason::UnknownNamespace | Reason::Denied), "{refused:?}");
    }
    assert!(client.list_keys(None).await.unwrap().is_empty());
    let grant = "[[allow]]\nusers = [0]\nnamespaces = [\"keyd\"]\noperations = [\"sign\"]\n";
    for table in [grant, "[[namespace]]\nname = \"keyd\"\nprotections = [\"software\"]\n"] {
        let dir = tempfile::tempdir().unwrap();
        refused_start(&configure(dir.path(), table).unwrap()).await.is(FAILED, Reason::BadConfig, &["keyd"]);
    }
}

#[tokio::test]
async fn a_storage_root_key_that_an_operator_made_is_in_the_log_once() {
    let dir = tempfile::tempdir().unwrap();
    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    // A counter would have it made at the start.
    let table = format!("[tpm]\ntcti = {:?}\ncounter = false\n", tpm.tcti());
    let config = table + &namespaces(&[("dev", &[Protection::Software])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    assert!(keyd.json(&["node", "srk"]).await.unwrap()["srk_name"].is_null(), "looking makes none");
    let made = keyd.json(&["node", "srk", "--make"]).await.unwrap();
    assert_eq!(keyd.json(&["node", "srk", "--make"]).await.unwrap(), made);
    let found = records(&keyd, &["--event", "storage-root-made"]).await;
    let [record] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&record["name"], &record["result"]), (&made["srk_name"], &"ok".into()));
}
