//! A node whose TPM and token are lost, and what an escrow gives back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyd_api::v1::KeyOutcome;
use keyd_api::{Client, KeyInfo};
use keyd_core::{Algorithm, Failure, KeyId, Protection, Reason, Secret, SignInput};
use keyd_escrow::{EscrowFile, EscrowedKey, FILE_LIMIT, OperatorKey, Recipient, seal};
use keyd_softkey::SoftKey;
use peers::swtpm::Swtpm;
use peers::token::Token;
use serde_json::Value;
use system::binary;
use system::keyd::{Keyd, namespaces, token_with_pin};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use Protection::{Hsm, HsmWrapped, Software, TpmSealed};

use crate::broken_off::{KEYS, Told, again_and_again};
use crate::refusals::{DENIED, EXISTS, FAILED, refusal, refused_start};

const MESSAGE: SignInput<'_> = SignInput::Message(b"m");
const NAMESPACES: &[(&str, &[Protection])] =
    &[("hard", &[Hsm]), ("wrapped", &[HsmWrapped, TpmSealed]), ("sealed", &[TpmSealed])];

/// A machine: a TPM, a token, and where keyd keeps its state.
struct Machine {
    dir: TempDir,
    _tpm: Swtpm,
    config: String,
}

impl Machine {
    fn new(recipient: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
        let token = Token::softhsm(dir.path()).unwrap();
        let config = token_with_pin(&token, dir.path()).unwrap()
            + &format!("[tpm]\ntcti = {:?}\n[escrow]\nrecipient = {recipient:?}\n", tpm.tcti())
            + &namespaces(NAMESPACES);
        Self { dir, _tpm: tpm, config }
    }

    async fn start(&self) -> Keyd {
        Keyd::start(self.dir.path(), &self.config).await.unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

/// The operator's machine.
struct Operator {
    dir: TempDir,
}

impl Operator {
    async fn new() -> Self {
        let operator = Self { dir: tempfile::tempdir().unwrap() };
        operator.new_recipient("operator").await;
        operator
    }

    /// A key pair, made without a keyd.
    async fn new_recipient(&self, name: &str) {
        let (public, private) = (self.path(&format!("{name}.pem")), self.path(name));
        let mut keyd = Command::new(binary("keyd").unwrap());
        keyd.args(["escrow", "new-recipient", "--out-public", &public, "--out-private", &private]);
        let output = keyd.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn public(&self) -> PathBuf {
        self.dir.path().join("operator.pem")
    }

    /// An escrow, and what opens it.
    fn unlock(&self, file: &str) -> (Vec<u8>, Secret) {
        let key = OperatorKey::from_pem(&Secret::new(fs::read(self.path("operator")).unwrap())).unwrap();
        let escrow = fs::read(file).unwrap();
        let unlocked = key.unlock(&EscrowFile::parse(&escrow).unwrap()).unwrap();
        (escrow, unlocked)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

async fn make_keys(keyd: &Keyd) -> Vec<KeyInfo> {
    let client = keyd.client();
    client.create_key(&"hard/ec".parse().unwrap(), Algorithm::EcP256, None).await.unwrap();
    let mut keys = Vec::new();
    for (id, algorithm) in [
        ("sealed/a", Algorithm::MlDsa65),
        ("sealed/ec", Algorithm::EcP384),
        ("wrapped/a", Algorithm::MlDsa87),
        ("wrapped/b", Algorithm::MlDsa44),
    ] {
        let id: KeyId = id.parse().unwrap();
        client.create_key(&id, algorithm, None).await.unwrap();
        keys.push(client.rotate_key(&id, None, None).await.unwrap());
    }
    keys
}

async fn assert_all_sign(keyd: &Keyd, keys: &[KeyInfo]) {
    for key in keys {
        let now = keyd.client().show_key(&key.key).await.unwrap();
        assert_eq!(
            (now.version, now.created_at, &now.public_key, now.protection),
            (key.version, key.created_at, &key.public_key, key.protection)
        );
        let signed = keyd.client().sign(&key.key, MESSAGE).await.unwrap();
        key.public_key.verify(MESSAGE, &signed.signature).unwrap();
    }
}

fn counts(restored: &Value) -> [u64; 4] {
    ["restored", "current", "due", "failed"].map(|name| restored[name].as_u64().unwrap())
}

async fn accept_store(dir: &Path) {
    let mut keyd = Command::new(binary("keyd").unwrap());
    keyd.args(["accept-store", "--config"]).arg(dir.join("keyd.toml"));
    let output = keyd.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_node_with_a_new_tpm_and_a_new_token_gets_its_keys_back() {
    let operator = Operator::new().await;
    let old = Machine::new(&operator.public());
    let keyd = old.start().await;
    let keys = make_keys(&keyd).await;
    let file = operator.path("escrow");
    let exported = keyd.json(&["escrow", "export", "--out", &file]).await.unwrap();
    assert_eq!(exported["keys"], 4, "{exported}");
    let left_out = exported["left_out"].as_array().unwrap();
    assert!(left_out.iter().any(|left| left["key"] == "hard/ec"), "{exported}");
    assert!(
        left_out.iter().all(|left| left["key"] == "hard/ec" || left["key"] == "keyd/audit"),
        "{exported}"
    );
    refusal(&keyd, &["escrow", "export", "--out", &file]).await.is(
        FAILED,
        Reason::BadRequest,
        &["exists already"],
    );
    let part = operator.path("part");
    let exported = keyd.json(&["escrow", "export", "--out", &part, "--namespace", "sealed"]).await.unwrap();
    assert_eq!(exported["keys"], 2, "{exported}");
    keyd.stop().await.unwrap();

    // The state directory is all that is left.
    let new = Machine::new(&operator.public());
    fs::rename(old.dir.path().join("state"), new.dir.path().join("state")).unwrap();
    drop(old);
    system::keyd::configure(new.dir.path(), &new.config).unwrap();
    accept_store(new.dir.path()).await;
    let keyd = new.start().await;
    for key in &keys {
        let refused = keyd.client().sign(&key.key, MESSAGE).await.unwrap_err();
        assert_eq!(refused.reason, Reason::UnsealFailed, "{refused}");
    }
    let private = operator.path("operator");
    let restore = ["escrow", "restore", "--in", &file, "--key", &private];
    let dry = keyd.json(&[&restore[..], &["--dry-run"]].concat()).await.unwrap();
    assert_eq!(counts(&dry), [0, 0, 4, 0], "{dry}");
    assert!(keyd.client().sign(&keys[0].key, MESSAGE).await.is_err(), "nothing was changed");
    let done = keyd.json(&restore).await.unwrap();
    assert_eq!(counts(&done), [4, 0, 0, 0], "{done}");
    assert_all_sign(&keyd, &keys).await;
    let audit = keyd.json(&["audit", "show"]).await.unwrap().to_string();
    // The secrets left keyd also where the file could not be written.
    for (event, times) in [("escrow-exported", 3), ("key-restored", 4)] {
        assert_eq!(audit.matches(&format!("\"{event}\"")).count(), times, "{event}");
    }
    let again = keyd.json(&restore).await.unwrap();
    assert_eq!(counts(&again), [0, 4, 0, 0], "{again}");
    let opened = keyd.json(&["audit", "show", "--event", "escrow-opened"]).await.unwrap();
    let opened = opened["records"].as_array().unwrap();
    let told: Vec<_> = opened.iter().map(|r| (r["keys"].as_u64(), r["dry_run"].as_bool())).collect();
    assert_eq!(told, [true, false, false].map(|dry_run| (Some(4), Some(dry_run))), "{opened:?}");
    keyd.kill().await.unwrap();
    assert_all_sign(&Keyd::restart(new.dir.path()).await.unwrap(), &keys).await;
}

#[tokio::test]
async fn a_blank_node_gets_the_keys_and_another_key_of_the_same_name_is_left() {
    let operator = Operator::new().await;
    let old = Machine::new(&operator.public());
    let keyd = old.start().await;
    let keys = make_keys(&keyd).await;
    let (file, private) = (operator.path("escrow"), operator.path("operator"));
    keyd.json(&["escrow", "export", "--out", &file]).await.unwrap();
    keyd.stop().await.unwrap();

    let new = Machine::new(&operator.public());
    let keyd = new.start().await;
    let own = keyd.client().create_key(&keys[0].key, Algorithm::MlDsa65, None).await.unwrap();
    let restore = ["escrow", "restore", "--in", &file, "--key", &private];
    let words =
        ["1 keys were not restored, first sealed/a", "version 1", "version 2", "keyd key delete sealed/a"];
    refusal(&keyd, &restore).await.is(EXISTS, Reason::KeyExists, &words);
    assert_all_sign(&keyd, &keys[1..]).await;
    assert_all_sign(&keyd, &[own]).await;

    keyd.json(&["key", "delete", "sealed/a"]).await.unwrap();
    assert_eq!(counts(&keyd.json(&restore).await.unwrap()), [1, 3, 0, 0]);
    assert_all_sign(&keyd, &keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_broken_off_is_taken_up_again_and_what_was_told_is_there() {
    async fn restore(keyd: Client, escrow: Arc<(Vec<u8>, Secret)>, told: Told) -> Result<(), Failure> {
        let (file, unlocked) = &*escrow;
        let done = |key: &KeyOutcome| {
            assert!(key.message.is_empty(), "{}", key.message);
            told.add(&key.key);
        };
        keyd.restore_escrow(file.clone(), unlocked, "", false, done).await.map(drop)
    }
    let operator = Operator::new().await;
    let old = Machine::new(&operator.public());
    let keyd = old.start().await;
    let mut keys = Vec::new();
    for number in 0..KEYS {
        let namespace = if number % 2 == 0 { "sealed" } else { "wrapped" };
        let id = format!("{namespace}/{number}").parse().unwrap();
        keys.push(keyd.client().create_key(&id, Algorithm::MlDsa65, None).await.unwrap());
    }
    let file = operator.path("escrow");
    keyd.json(&["escrow", "export", "--out", &file]).await.unwrap();
    keyd.stop().await.unwrap();
    let escrow = Arc::new(operator.unlock(&file));

    let new = Machine::new(&operator.public());
    let mut keyd = new.start().await;
    let started = Instant::now();
    restore(keyd.client(), escrow.clone(), Told::default()).await.unwrap();
    let (takes, mut met) = (started.elapsed(), 0);
    for _ in 0..3 {
        for key in &keys {
            keyd.client().delete_key(&key.key).await.unwrap();
        }
        let change = |client: Client, told: Told| restore(client, escrow.clone(), told);
        let check = async |keyd: &Keyd, told: &Told| {
            let listed = keyd.client().list_keys(None).await.unwrap();
            let is_listed = |key: &KeyInfo| listed.iter().any(|listed| listed.key == key.key);
            let there: Vec<_> = keys.iter().filter(|key| is_listed(key)).cloned().collect();
            assert_eq!(there.len(), listed.len(), "nothing but what is in the escrow");
            assert!(keys.iter().all(|key| is_listed(key) || !told.has(&key.key)), "{listed:?}");
            assert_all_sign(keyd, &there).await;
        };
        let (again, some) = again_and_again(new.dir.path(), keyd, takes, change, check).await;
        (keyd, met) = (again, met + some);
    }
    assert!(met > 0, "no kill met a restore under way");
    assert_all_sign(&keyd, &keys).await;
}

#[tokio::test]
async fn what_is_wrong_with_an_escrow_is_told_and_nothing_is_restored() {
    let operator = Operator::new().await;
    operator.new_recipient("other").await;
    let machine = Machine::new(&operator.public());
    let keyd = machine.start().await;
    let keys = make_keys(&keyd).await;
    let (file, private, bad) = (operator.path("escrow"), operator.path("operator"), operator.path("bad"));
    keyd.json(&["escrow", "export", "--out", &file]).await.unwrap();
    let whole = fs::read(&file).unwrap();
    for key in &keys {
        keyd.client().delete_key(&key.key).await.unwrap();
    }

    let restore =
        |file: &str, key: &str| ["escrow", "restore", "--in", file, "--key", key].map(str::to_owned);
    let refused = async |file: &str, key: &str| {
        let args = restore(file, key);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        refusal(&keyd, &args).await
    };
    let other = operator.path("other");
    refused(&file, &other).await.is(FAILED, Reason::BadRequest, &[&file, "was made for the operator key"]);
    let readable = operator.path("readable");
    fs::copy(&private, &readable).unwrap();
    fs::set_permissions(&readable, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    refused(&file, &readable).await.is(FAILED, Reason::BadRequest, &["0644", "chmod 0600"]);
    refused(&file, &machine.path("pin")).await.is(FAILED, Reason::BadRequest, &["it is not PEM"]);
    refused(&machine.path("pin"), &private).await.is(FAILED, Reason::BadRequest, &["no escrow"]);

    // What the command cannot know of it, keyd finds: within the ML-KEM ciphertext, and in the first and last of the keys.
    for at in [200, 1500, 1700, whole.len() - 17, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&bad, changed).unwrap();
        refused(&bad, &private).await.is(FAILED, Reason::Integrity, &["does not open"]);
    }
    for len in [0, 11, 100, 1700, whole.len() - 1] {
        fs::write(&bad, &whole[..len]).unwrap();
        refused(&bad, &private).await.is(FAILED, Reason::BadRequest, &[&bad]);
    }
    let failed = keyd.json(&["audit", "show", "--event", "escrow-opened"]).await.unwrap();
    let failed = failed["records"].as_array().unwrap();
    assert_eq!(failed.len(), 5, "{failed:?}");
    assert!(failed.iter().all(|r| r["result"] == "INTEGRITY" && r["keys"] == 0), "{failed:?}");
    fs::File::create(&bad).unwrap().set_len(FILE_LIMIT as u64 * 1000).unwrap();
    refused(&bad, &private).await.is(FAILED, Reason::BadRequest, &["more than 67108864 bytes"]);
    assert!(keyd.client().list_keys(None).await.unwrap().iter().all(|key| key.protection == Hsm));
    assert_eq!(
        counts(&keyd.json(&["escrow", "restore", "--in", &file, "--key", &private]).await.unwrap()),
        [4, 0, 0, 0]
    );
    assert_all_sign(&keyd, &keys).await;
}

#[tokio::test]
async fn the_escrow_of_another_node_needs_its_name() {
    let operator = Operator::new().await;
    let machine = Machine::new(&operator.public());
    let keyd = machine.start().await;
    let recipient = Recipient::from_pem(&fs::read(operator.public()).unwrap()).unwrap();
    let secret = SoftKey::generate_secret(Algorithm::MlDsa65).unwrap();
    let soft = SoftKey::from_secret(Algorithm::MlDsa65, &secret).unwrap();
    let keys =
        ["sealed/a", "unknown/a", "hard/a"].map(|id| EscrowedKey::new(id.parse().unwrap(), 7, 1, &soft));
    let (file, private) = (operator.path("escrow"), operator.path("operator"));
    fs::write(&file, seal(&recipient, "edge-18", 0, &keys[..1]).unwrap()).unwrap();
    let restore = ["escrow", "restore", "--in", &file, "--key", &private];
    let words = ["of node edge-18", "--node edge-18"];
    refusal(&keyd, &restore).await.is(FAILED, Reason::BadRequest, &words);
    let named = [&restore[..], &["--node", "edge-18"]].concat();
    assert_eq!(counts(&keyd.json(&named).await.unwrap()), [1, 0, 0, 0]);
    assert_eq!(keyd.json(&["key", "show", "sealed/a"]).await.unwrap()["version"], 7);

    // Nothing goes into the token, and nothing to a namespace that there is not.
    fs::write(&file, seal(&recipient, "edge-18", 0, &keys[2..]).unwrap()).unwrap();
    let words = ["hard/a", "accepts hsm alone", "keyd key create hard/a"];
    refusal(&keyd, &named).await.is(FAILED, Reason::ProtectionUnavailable, &words);
    fs::write(&file, seal(&recipient, "edge-18", 0, &keys).unwrap()).unwrap();
    refusal(&keyd, &named).await.is(FAILED, Reason::UnknownNamespace, &["namespace unknown"]);
}

#[tokio::test]
async fn escrow_is_off_and_denied_unless_the_configuration_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let tables: &[(&str, &[Protection])] = &[("dev", &[Software])];
    let keyd = Keyd::start(dir.path(), &namespaces(tables)).await.unwrap();
    let out = dir.path().join("escrow").display().to_string();
    let export = ["escrow", "export", "--out", &out];
    let words = ["escrow is off", "[escrow]", "keyd escrow new-recipient"];
    refusal(&keyd, &export).await.is(FAILED, Reason::BadConfig, &words);
    assert!(!Path::new(&out).exists());
    keyd.stop().await.unwrap();

    let denied = namespaces(tables).replace("\"escrow\", ", "");
    let keyd = Keyd::start(dir.path(), &denied).await.unwrap();
    refusal(&keyd, &export).await.is(DENIED, Reason::Denied, &["no right to escrow"]);
    keyd.stop().await.unwrap();

    let missing = format!("[escrow]\nrecipient = {:?}\n", dir.path().join("none"));
    let config = system::keyd::configure(dir.path(), &(missing + &namespaces(tables))).unwrap();
    refused_start(&config).await.is(FAILED, Reason::BadConfig, &["[escrow] recipient", "none"]);
}
