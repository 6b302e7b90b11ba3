//! TPMs that are not there, or are not the one that was enrolled.

use std::path::Path;

use keyd_core::{Protection, Reason};
use peers::swtpm::Swtpm;
use system::keyd::{Keyd, namespaces};

use super::{FAILED, UNREACHABLE, refusal};

async fn on(dir: &Path, tpm: &Swtpm, more: &str) -> Keyd {
    let tables: &[(&str, &[Protection])] =
        &[("sealed", &[Protection::TpmSealed]), ("soft", &[Protection::Software])];
    let table = format!("[tpm]\ntcti = {:?}\n{more}", tpm.tcti());
    Keyd::start(dir, &(table + &namespaces(tables))).await.unwrap()
}

#[tokio::test]
async fn a_tpm_that_is_absent_at_start_is_told_and_used_once_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    tpm.stop();
    let keyd = on(dir.path(), &tpm, "").await;
    let tcti = tpm.tcti();
    let words = [&tcti, "cannot connect", "Check that the device exists", "goes on by itself"];
    refusal(&keyd, &["key", "create", "sealed/a"]).await.is(UNREACHABLE, Reason::TpmAbsent, &words);
    refusal(&keyd, &["node", "show"]).await.is(UNREACHABLE, Reason::TpmAbsent, &words);
    let status = keyd.json(&["status"]).await.unwrap();
    assert_eq!(status["devices"][0]["state"], "absent", "{status}");
    // Whether the store is an older copy is not known, so no other key is made either.
    let words = [&tcti, "counter", "older copy", "cannot connect"];
    refusal(&keyd, &["key", "create", "soft/a"]).await.is(UNREACHABLE, Reason::TpmAbsent, &words);

    tpm.restart().unwrap();
    let made = keyd.json(&["key", "create", "sealed/a"]).await.unwrap();
    assert_eq!(made["protection"], "tpm-sealed");
    assert_eq!(keyd.json(&["status"]).await.unwrap()["devices"][0]["state"], "ok");
}

#[tokio::test]
async fn lockout_that_touches_keyds_keys_is_told_by_status_and_metrics_too() {
    let dir = tempfile::tempdir().unwrap();
    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    tpm.make_srk_with_tools().unwrap();
    let keyd = on(dir.path(), &tpm, "").await;
    keyd.json(&["key", "create", "sealed/a"]).await.unwrap();
    keyd.stop().await.unwrap();
    tpm.lock_out().unwrap();

    let keyd = on(dir.path(), &tpm, "").await;
    let letter = dir.path().join("keyd.toml");
    let sign = ["key", "sign", "sealed/a", "--out", "-", "--in", letter.to_str().unwrap()];
    refusal(&keyd, &sign).await.is(FAILED, Reason::TpmLockout, &["--clear-lockout"]);
    let status = keyd.json(&["status"]).await.unwrap();
    assert_eq!(status["devices"][0]["state"], "locked out", "{status}");
    let metrics = keyd.output(&["metrics"]).await.unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    assert!(metrics.contains("keyd_device_state{device=\"tpm\",state=\"locked out\"} 1"), "{metrics}");
}

#[tokio::test]
async fn another_tpm_than_the_enrolled_one_is_given_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let enrolled = Swtpm::start(&dir.path().join("enrolled")).unwrap();
    let other = Swtpm::start(&dir.path().join("other")).unwrap();
    let keyd = on(dir.path(), &enrolled, "").await;
    let srk = keyd.json(&["node", "srk", "--make"]).await.unwrap();
    keyd.json(&["key", "create", "sealed/a"]).await.unwrap();
    keyd.stop().await.unwrap();

    let pinned = format!("srk_name = {}\n", srk["srk_name"]);
    for what in ["there is no storage root key", "another Name than the one pinned"] {
        let keyd = on(dir.path(), &other, &pinned).await;
        let words = [what, "cleared or replaced", "enrol this node anew"];
        let letter = dir.path().join("keyd.toml");
        let sign = ["key", "sign", "sealed/a", "--out", "-", "--in", letter.to_str().unwrap()];
        let (sealed, soft) = (["key", "create", "sealed/b"], ["key", "create", "soft/b"]);
        for command in [&sealed[..], &soft, &sign, &["node", "show"]] {
            refusal(&keyd, command).await.is(FAILED, Reason::TpmReplaced, &words);
        }
        let status = keyd.json(&["status"]).await.unwrap();
        assert_eq!(status["devices"][0]["state"], "replaced", "{status}");
        keyd.stop().await.unwrap();
        // For the second round the other TPM has a storage root key too, its own.
        let unpinned = on(dir.path(), &other, "counter = false\n").await;
        assert_ne!(unpinned.json(&["node", "srk", "--make"]).await.unwrap(), srk);
        unpinned.stop().await.unwrap();
    }
    let keyd = on(dir.path(), &enrolled, &pinned).await;
    let out = dir.path().join("signature");
    let (letter, out) = (dir.path().join("keyd.toml"), out.to_str().unwrap());
    keyd.json(&["key", "sign", "sealed/a", "--out", out, "--in", letter.to_str().unwrap()]).await.unwrap();
}
