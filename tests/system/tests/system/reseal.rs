//! PCRs that move, and seals that are renewed.

use std::path::Path;

use keyd_api::Client;
use keyd_api::v1::KeyOutcome;
use keyd_core::{Algorithm, Failure, Protection, Reason, SignInput};
use peers::interposer::{Interposer, UNSEAL};
use peers::swtpm::Swtpm;
use serde_json::Value;
use system::keyd::{Keyd, configure, namespaces};
use tokio::time::Instant;

use crate::broken_off::{KEYS as MANY, Told, again_and_again};
use crate::refusals::{FAILED, USAGE, refusal};

/// A PCR that any locality may extend.
const PCR: &str = "16";
/// The first key's and the second's.
const KEYS: [&str; 2] = ["sealed/a", "sealed/b"];

async fn start(dir: &Path, tcti: &str, more: &str) -> Keyd {
    let keyd = Keyd::start(dir, &config(tcti, more)).await.unwrap();
    for key in KEYS {
        keyd.json(&["key", "create", key]).await.unwrap();
    }
    keyd
}

fn config(tcti: &str, more: &str) -> String {
    // The audit key is kept out of the count.
    format!("[audit]\nprotections = [\"software\"]\n[tpm]\ntcti = {tcti:?}\n{more}")
        + &namespaces(&[("sealed", &[Protection::TpmSealed])])
}

fn to_pcr() -> String {
    format!("seal_to = \"pcrs\"\npcrs = [7, {PCR}]\n")
}

/// The software TPM serves one connection at a time, so this is done through an interposer that hangs up first.
fn extend(tpm: &Swtpm, bus: &Interposer) {
    bus.hang_up();
    let digest = format!("{PCR}:sha256={}", "07".repeat(32));
    assert!(tpm.tool("tpm2_pcrextend").arg(digest).status().unwrap().success());
}

async fn sign(keyd: &Keyd, key: &str) -> Result<Value, anyhow::Error> {
    let file = keyd.socket().with_file_name("keyd.toml");
    let signature = keyd.socket().with_file_name("signature");
    let (file, signature) = (file.to_str().unwrap(), signature.to_str().unwrap());
    keyd.json(&["key", "sign", key, "--in", file, "--out", signature]).await
}

async fn findings(keyd: &Keyd) -> Vec<Value> {
    let output = keyd.output(&["--json", "doctor"]).await.unwrap();
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["findings"].as_array().unwrap().clone()
}

async fn outcomes(keyd: &Keyd, arguments: &[&str]) -> [u64; 3] {
    let said = keyd.json(&[&["reseal"], arguments].concat()).await.unwrap();
    assert_eq!(said["failed"], 0, "{said}");
    ["resealed", "current", "due"].map(|name| said[name].as_u64().unwrap())
}

#[tokio::test]
async fn a_moved_pcr_is_named_while_keys_are_in_memory_and_resealing_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    let bus = Interposer::before(&tpm).unwrap();
    let keyd = start(dir.path(), &bus.tcti(), &to_pcr()).await;
    assert_eq!(findings(&keyd).await, Vec::<Value>::new());
    assert_eq!(outcomes(&keyd, &[]).await, [0, 2, 0]);

    extend(&tpm, &bus);
    let found = findings(&keyd).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["subject"], "key sealed/a, and 1 more");
    let told = found[0]["next_step"].as_str().unwrap();
    assert!(
        told.contains("PCR 16 was 0000000000000000… at sealing and is ") && told.contains("keyd reseal"),
        "{told}"
    );
    sign(&keyd, "sealed/a").await.unwrap();

    assert_eq!(outcomes(&keyd, &["--dry-run"]).await, [0, 0, 2]);
    assert_eq!(findings(&keyd).await.len(), 1, "a dry run changes nothing");
    assert_eq!(outcomes(&keyd, &[]).await, [2, 0, 0]);
    assert_eq!(outcomes(&keyd, &[]).await, [0, 2, 0], "twice is once");
    assert_eq!(findings(&keyd).await, Vec::<Value>::new());
    keyd.kill().await.unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    for key in KEYS {
        sign(&keyd, key).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_is_unsealed_once_and_its_seal_opens_in_no_other_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    let bus = Interposer::before(&tpm).unwrap();
    start(dir.path(), &bus.tcti(), &to_pcr()).await.stop().await.unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    assert_eq!(bus.count(UNSEAL), 0, "nothing is unsealed before it is needed");
    for _ in 0..3 {
        sign(&keyd, "sealed/a").await.unwrap();
    }
    assert_eq!(bus.count(UNSEAL), 1);
    keyd.stop().await.unwrap();

    extend(&tpm, &bus);
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let file = dir.path().join("keyd.toml");
    let command = ["key", "sign", "sealed/a", "--out", "-", "--in", file.to_str().unwrap()];
    let words = ["PCR 16 was 0000000000000000…", "keyd reseal --pcr"];
    refusal(&keyd, &command).await.is(FAILED, Reason::PcrChanged, &words);
    refusal(&keyd, &["reseal"]).await.is(
        FAILED,
        Reason::PcrChanged,
        &["2 keys keep their old seal", "PCR 16"],
    );
    // Back in the former state, all is there.
    keyd.stop().await.unwrap();
    tpm.restart().unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    for key in KEYS {
        sign(&keyd, key).await.unwrap();
    }
}

#[tokio::test]
async fn keys_sealed_ahead_of_a_planned_change_open_before_it_and_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    let bus = Interposer::before(&tpm).unwrap();
    let keyd = start(dir.path(), &bus.tcti(), &to_pcr()).await;
    let value = after_the_change();
    let ahead = format!("{PCR}={value}");
    assert_eq!(outcomes(&keyd, &["--pcr", &ahead]).await, [2, 0, 0]);
    assert_eq!(outcomes(&keyd, &["--pcr", &ahead]).await, [0, 2, 0]);
    keyd.stop().await.unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    sign(&keyd, "sealed/a").await.expect("before the change");
    keyd.stop().await.unwrap();

    extend(&tpm, &bus);
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    sign(&keyd, "sealed/a").await.expect("after the change");
    let found = findings(&keyd).await;
    assert!(found[0]["problem"].as_str().unwrap().contains("otherwise than a new key"), "{found:?}");
    assert_eq!(outcomes(&keyd, &[]).await, [2, 0, 0], "to the new state alone");
    let strange = ["reseal", "--pcr", &format!("8={value}")];
    refusal(&keyd, &strange).await.is(FAILED, Reason::BadRequest, &["not sealed to PCR 8"]);
    for wrong in ["16", "16=00", "24=00", "x=y"] {
        let output = keyd.output(&["reseal", "--pcr", wrong]).await.unwrap();
        assert_eq!(output.status.code(), Some(USAGE), "{wrong}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("INDEX=VALUE"), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reseal_that_is_broken_off_leaves_every_key_to_open_and_is_taken_up_again() {
    async fn reseal(keyd: Client, pcrs: Vec<(u8, [u8; 32])>, told: Told) -> Result<(), Failure> {
        let done = |key: &KeyOutcome| {
            assert!(key.message.is_empty(), "{}", key.message);
            told.add(&key.key);
        };
        keyd.reseal(&pcrs, false, done).await.map(drop)
    }
    let dir = tempfile::tempdir().unwrap();
    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    let bus = Interposer::before(&tpm).unwrap();
    let mut keyd = Keyd::start(dir.path(), &config(&bus.tcti(), &to_pcr())).await.unwrap();
    let mut keys = Vec::new();
    for number in 0..MANY {
        let id = format!("sealed/{number}").parse().unwrap();
        keys.push(keyd.client().create_key(&id, Algorithm::MlDsa65, None).await.unwrap());
    }
    let all_sign = async |keyd: &Keyd, _: &Told| {
        for key in &keys {
            let input = SignInput::Message(b"m");
            let signed = keyd.client().sign(&key.key, input).await.unwrap();
            key.public_key.verify(input, &signed.signature).unwrap();
        }
    };
    let mut value = [0; 32];
    hex::decode_to_slice(after_the_change(), &mut value).unwrap();
    let ahead = vec![(PCR.parse().unwrap(), value)];
    let started = Instant::now();
    reseal(keyd.client(), ahead.clone(), Told::default()).await.unwrap();
    let (takes, mut met) = (started.elapsed(), 0);
    for pcrs in [vec![], ahead.clone(), vec![], ahead] {
        let change = |client: Client, told: Told| reseal(client, pcrs.clone(), told);
        let (again, some) = again_and_again(dir.path(), keyd, takes, change, all_sign).await;
        (keyd, met) = (again, met + some);
    }
    assert!(met > 0, "no kill met a reseal under way");
    keyd.stop().await.unwrap();
    extend(&tpm, &bus);
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    all_sign(&keyd, &Told::default()).await;
}

#[tokio::test]
async fn a_signed_policy_takes_keys_through_an_update_and_over_from_other_seals() {
    let dir = tempfile::tempdir().unwrap();
    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    let bus = Interposer::before(&tpm).unwrap();
    let keyd = start(dir.path(), &bus.tcti(), "").await;
    keyd.stop().await.unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &path("private")]);
    openssl(&["pkey", "-in", &path("private"), "-pubout", "-out", &path("public")]);
    let approve = async |value: &str| {
        let mut keyd = tokio::process::Command::new(system::binary("keyd").unwrap());
        keyd.args(["tpm", "sign-policy", "--key", &path("private"), "--out", &path("signed.json")]);
        keyd.args(["--pcr", &format!("{PCR}={value}")]);
        assert!(keyd.output().await.unwrap().status.success());
    };
    let signed = format!(
        "seal_to = \"signed-policy\"\npolicy_key = {:?}\npolicy_signatures = {:?}\n",
        path("public"),
        path("signed.json")
    );
    configure(dir.path(), &config(&bus.tcti(), &signed)).unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    // Nothing is approved yet: the old seals stay, and open.
    refusal(&keyd, &["reseal"]).await.is(FAILED, Reason::PolicyOutdated, &["signed.json", "cannot be read"]);
    sign(&keyd, "sealed/a").await.unwrap();
    approve(&"00".repeat(32)).await;
    assert_eq!(outcomes(&keyd, &[]).await, [2, 0, 0]);
    keyd.stop().await.unwrap();

    extend(&tpm, &bus);
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let found = findings(&keyd).await;
    let told = found[0]["next_step"].as_str().unwrap();
    assert!(told.contains("approves no state with the present PCRs 16; PCR 16 was 0000"), "{told}");
    assert!(sign(&keyd, "sealed/a").await.is_err());
    approve(&pcr(&tpm, &bus)).await;
    for key in KEYS {
        sign(&keyd, key).await.unwrap();
    }
    assert_eq!(findings(&keyd).await, Vec::<Value>::new());
}

/// What [`PCR`] is now, as tpm2-tools read it.
fn pcr(tpm: &Swtpm, bus: &Interposer) -> String {
    bus.hang_up();
    let output = tpm.tool("tpm2_pcrread").arg(format!("sha256:{PCR}")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split("0x").last().unwrap().trim().to_lowercase()
}

/// What [`PCR`] will be, found out on another machine.
fn after_the_change() -> String {
    let dir = tempfile::tempdir().unwrap();
    let other = Swtpm::start(dir.path()).unwrap();
    let bus = Interposer::before(&other).unwrap();
    extend(&other, &bus);
    pcr(&other, &bus)
}

fn openssl(arguments: &[&str]) {
    assert!(std::process::Command::new("openssl").args(arguments).output().unwrap().status.success());
}
