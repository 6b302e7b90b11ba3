//! An older copy of the store that was put back.

use std::fs;
use std::path::{Path, PathBuf};

use keyd_core::{Protection, Reason};
use peers::interposer::{Interposer, Meddle, NV_INCREMENT};
use peers::swtpm::Swtpm;
use serde_json::Value;
use system::binary;
use system::keyd::{Keyd, namespaces};
use tokio::process::Command;

use crate::refusals::start::start_days_ago;
use crate::refusals::{FAILED, refusal, refused_start};

/// A machine with a TPM and a keyd whose keys no TPM seals: what is guarded is the store.
struct Machine {
    dir: tempfile::TempDir,
    tpm: Swtpm,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
        Self { dir, tpm }
    }

    async fn start(&self, more: &str) -> Keyd {
        self.start_on(&self.tpm.tcti(), more).await
    }

    async fn start_on(&self, tcti: &str, more: &str) -> Keyd {
        let table = format!("[tpm]\ntcti = {tcti:?}\n{more}");
        Keyd::start(self.path(), &(table + &namespaces(&[("dev", &[Protection::Software])]))).await.unwrap()
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn config(&self) -> PathBuf {
        self.path().join("keyd.toml")
    }

    fn store(&self) -> Vec<u8> {
        fs::read(self.path().join("state/keys.redb")).unwrap()
    }

    fn put_back(&self, store: &[u8]) {
        fs::write(self.path().join("state/keys.redb"), store).unwrap();
    }

    async fn accept(&self) -> Value {
        let mut accept = Command::new(binary("keyd").unwrap());
        let output =
            accept.args(["--json", "accept-store", "--config"]).arg(self.config()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn tool(&self, name: &str, arguments: &[&str]) {
        assert!(self.tpm.tool(name).args(arguments).status().unwrap().success());
    }
}

async fn make(keyd: &Keyd, key: &str) {
    keyd.json(&["key", "create", key]).await.unwrap();
}

async fn keys(keyd: &Keyd) -> Vec<String> {
    let mut keys: Vec<_> =
        keyd.client().list_keys(None).await.unwrap().into_iter().map(|k| k.key.to_string()).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn an_older_store_is_refused_in_words_and_the_newest_is_taken() {
    let machine = Machine::new();
    let keyd = machine.start("").await;
    make(&keyd, "dev/deleted").await;
    make(&keyd, "dev/kept").await;
    keyd.stop().await.unwrap();
    let old = machine.store();
    let keyd = Keyd::restart(machine.path()).await.unwrap();
    keyd.json(&["key", "delete", "dev/deleted"]).await.unwrap();
    keyd.stop().await.unwrap();
    let new = machine.store();

    machine.put_back(&old);
    let words = ["older copy", "at change", "Put back the newest copy", "keyd accept-store"];
    for _ in 0..2 {
        refused_start(&machine.config()).await.is(FAILED, Reason::StoreRolledBack, &words);
    }
    machine.put_back(&new);
    let keyd = Keyd::restart(machine.path()).await.unwrap();
    assert_eq!(keys(&keyd).await, ["dev/kept"]);
}

#[tokio::test]
async fn an_older_store_that_is_accepted_serves_and_the_newer_one_is_refused_from_then_on() {
    let machine = Machine::new();
    let keyd = machine.start("").await;
    make(&keyd, "dev/a").await;
    keyd.stop().await.unwrap();
    let old = machine.store();
    let keyd = Keyd::restart(machine.path()).await.unwrap();
    make(&keyd, "dev/b").await;
    make(&keyd, "dev/c").await;
    keyd.stop().await.unwrap();
    let new = machine.store();

    machine.put_back(&old);
    let said = machine.accept().await;
    let at = |name: &str| said[name].as_u64().unwrap();
    // The key that signs the audit log is one of them.
    assert_eq!(said["keys"], 2, "{said}");
    assert_eq!(at("counter_was_at"), at("store_was_at") + 2, "{said}");
    assert_eq!(at("now_at"), at("counter_was_at") + 1);
    let keyd = Keyd::restart(machine.path()).await.unwrap();
    assert_eq!(keys(&keyd).await, ["dev/a"]);
    let recorded = keyd.json(&["audit", "show", "--event", "store-accepted"]).await.unwrap();
    let [accepted] = &recorded["records"].as_array().unwrap()[..] else { panic!("{recorded}") };
    assert_eq!((&accepted["keys"], &accepted["result"]), (&2.into(), &"ok".into()));
    assert_eq!(accepted["uid"], nix::unistd::geteuid().as_raw());
    make(&keyd, "dev/d").await;
    keyd.stop().await.unwrap();
    for copy in [&new, &old] {
        machine.put_back(copy);
        refused_start(&machine.config()).await.is(FAILED, Reason::StoreRolledBack, &["older copy"]);
    }
}

#[tokio::test]
async fn a_counter_that_was_deleted_or_belongs_to_another_store_is_told_and_can_be_accepted() {
    let machine = Machine::new();
    let keyd = machine.start("").await;
    make(&keyd, "dev/a").await;
    keyd.stop().await.unwrap();
    let bound = machine.store();
    // A store of another keyd on the same TPM, or the store of this one thrown away.
    fs::remove_file(machine.path().join("state/keys.redb")).unwrap();
    let words = ["bound to no counter", "counter_handle", "keyd accept-store"];
    refused_start(&machine.config()).await.is(FAILED, Reason::StoreRolledBack, &words);
    let other = machine.start("counter_handle = 0x01804b45\n").await;
    make(&other, "dev/b").await;
    other.stop().await.unwrap();

    machine.put_back(&bound);
    let words = ["bound to the counter at 0x1804b44", "counter_handle in keyd.toml says 0x1804b45"];
    refused_start(&machine.config()).await.is(FAILED, Reason::StoreRolledBack, &words);
    machine.start("").await.stop().await.unwrap();

    machine.tool("tpm2_nvundefine", &["-C", "o", "0x1804b44"]);
    let words = ["0x1804b44", "cleared", "deleted the counter", "keyd accept-store"];
    refused_start(&machine.config()).await.is(FAILED, Reason::StoreRolledBack, &words);
    machine.accept().await;
    let keyd = Keyd::restart(machine.path()).await.unwrap();
    assert_eq!(keys(&keyd).await, ["dev/a"]);
}

#[tokio::test]
async fn a_kill_between_a_change_and_its_count_loses_nothing_and_locks_nobody_out() {
    let machine = Machine::new();
    let bus = Interposer::before(&machine.tpm).unwrap();
    let mut keyd = machine.start_on(&bus.tcti(), "").await;
    make(&keyd, "dev/acknowledged").await;
    for (round, meddle) in
        [Meddle::CloseBefore(NV_INCREMENT), Meddle::Swallow(NV_INCREMENT)].into_iter().enumerate()
    {
        // The change is on disk; its count never arrives, or its answer does not.
        bus.meddle(meddle);
        let (client, key) = (keyd.client(), format!("dev/unsure-{round}").parse().unwrap());
        let creating = tokio::spawn(async move {
            let _ = client.create_key(&key, keyd_core::Algorithm::MlDsa44, None).await;
        });
        while !bus.has_meddled() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        keyd.kill().await.unwrap();
        creating.await.unwrap();
        bus.hang_up();
        keyd = Keyd::restart(machine.path()).await.unwrap();
        assert!(keys(&keyd).await.contains(&"dev/acknowledged".to_owned()));
        make(&keyd, &format!("dev/after-{round}")).await;
    }
    keyd.stop().await.unwrap();
    Keyd::restart(machine.path()).await.unwrap();
}

#[tokio::test]
async fn a_change_that_cannot_be_counted_is_refused_and_taken_back() {
    let mut machine = Machine::new();
    let keyd = machine.start("").await;
    make(&keyd, "dev/a").await;
    machine.tpm.stop();
    for command in [["key", "create", "dev/b"], ["key", "delete", "dev/a"], ["key", "rotate", "dev/a"]] {
        refusal(&keyd, &command).await.is(
            crate::refusals::UNREACHABLE,
            Reason::TpmAbsent,
            &["cannot connect"],
        );
        let info = keyd.client().show_key(&"dev/a".parse().unwrap()).await.unwrap();
        assert_eq!((keys(&keyd).await, info.version), (vec!["dev/a".to_owned()], 1));
    }
    machine.tpm.restart().unwrap();
    make(&keyd, "dev/b").await;
    keyd.json(&["key", "rotate", "dev/a"]).await.unwrap();
    keyd.stop().await.unwrap();
    let keyd = Keyd::restart(machine.path()).await.unwrap();
    assert_eq!(keys(&keyd).await, ["dev/a", "dev/b"]);
}

#[tokio::test]
async fn without_the_counter_an_older_store_is_taken_as_the_log_says() {
    let machine = Machine::new();
    let keyd = machine.start("counter = false\n").await;
    make(&keyd, "dev/a").await;
    keyd.stop().await.unwrap();
    let old = machine.store();
    let keyd = Keyd::restart(machine.path()).await.unwrap();
    make(&keyd, "dev/b").await;
    keyd.stop().await.unwrap();
    machine.put_back(&old);
    let keyd = Keyd::restart(machine.path()).await.unwrap();
    assert_eq!(keys(&keyd).await, ["dev/a"]);
    assert!(keyd.process.log().unwrap().contains("an older copy of the store is not noticed"));
}

#[tokio::test]
async fn a_clock_that_was_set_back_makes_no_store_older_and_no_older_store_new() {
    let machine = Machine::new();
    let keyd = machine.start("").await;
    make(&keyd, "dev/a").await;
    keyd.stop().await.unwrap();
    let old = machine.store();
    let past = start_days_ago(machine.path(), 3650).await;
    let key = "dev/a".parse().unwrap();
    past.client().rotate_key(&key, None, None).await.unwrap();
    past.kill().await.unwrap();
    let new = machine.store();

    machine.put_back(&old);
    refused_start(&machine.config()).await.is(FAILED, Reason::StoreRolledBack, &["older copy"]);
    machine.put_back(&new);
    let keyd = Keyd::restart(machine.path()).await.unwrap();
    assert_eq!(keyd.client().show_key(&key).await.unwrap().version, 2);
}
