//! What keeps keyd from starting.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use keyd_core::{Algorithm, Protection, Reason, SignInput};
use peers::token::Token;
use system::keyd::{Keyd, configure, namespaces, serve, token_table};
use tokio::process::Command;

use super::{FAILED, Refusal, refusal, refused_start, software};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn an_unknown_key_of_the_configuration_is_named_with_line_and_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    let file = configure(dir.path(), "sate_dir = \"/tmp\"\n").unwrap();
    let place = format!("{}:3:1: unknown field `sate_dir`", file.display());
    let words = [&place, "Did you mean \"state_dir\"?", "keyd config check"];
    refused_start(&file).await.is(FAILED, Reason::BadConfig, &words);
    refused_check(&file).await.is(FAILED, Reason::BadConfig, &words[..2]);
}

#[tokio::test]
async fn what_keeps_keyd_from_starting_is_told_by_a_check_of_the_configuration_too() {
    let dir = tempfile::tempdir().unwrap();
    let token = "[token]\nmodule = \"m\"\nlabel = \"l\"\npin_file = \"/p\"\n";
    let tpm = "[tpm]\ntcti = \"device:/dev/null\"\n";
    let policy = "policy_key = \"/nonexistent/key\"\npolicy_signatures = \"/s\"\n";
    // Two lines of the test's own stand before. Of a file that is not there, its own name is enough.
    for (table, key, line, words) in [
        (
            "[tpm]\n",
            "tcti = \"foo\"\n",
            ":4:",
            &["the TCTI \"foo\"", "device:/dev/tpmrm0 is the usual one"][..],
        ),
        (
            tpm,
            "srk_name = \"xyz\"\n",
            ":5:",
            &["srk_name \"xyz\" is not hexadecimal", "`keyd node srk` prints it"],
        ),
        (tpm, "call_deadline_ms = 0\n", ":5:", &["call_deadline_ms is 0", "give 1 or more"]),
        (tpm, policy, "", &["[tpm] policy_key /nonexistent/key"]),
        (token, "sessions = 0\n", ":7:", &["sessions is 0, and must be 1 to 64"]),
        (token, "sessions = 65\n", ":7:", &["sessions is 65, and must be 1 to 64"]),
        (token, "call_deadline_ms = 0\n", ":7:", &["call_deadline_ms is 0", "give 1 or more"]),
        ("[escrow]\n", "recipient = \"/nonexistent/pem\"\n", "", &["[escrow] recipient /nonexistent/pem"]),
    ] {
        let file = configure(dir.path(), &format!("{table}{key}")).unwrap();
        let place = if line.is_empty() { String::new() } else { format!("{}{line}", file.display()) };
        let words = [words, &[&place]].concat();
        refused_start(&file).await.is(FAILED, Reason::BadConfig, &words);
        refused_check(&file).await.is(FAILED, Reason::BadConfig, &words);
    }
}

/// How `keyd config check` refuses a configuration.
async fn refused_check(config: &Path) -> Refusal {
    let mut check = Command::new(system::binary("keyd").unwrap());
    Refusal::of(&check.args(["--json", "config", "check", "--config"]).arg(config).output().await.unwrap())
}

const PROFILE: &str =
    "[[issuance]]\nkeys = [\"dev/ca\"]\ntrust_domain = \"td\"\nown = { lifetime = \"1day\" }\n";

#[tokio::test]
async fn a_grant_to_nobody_or_for_a_namespace_that_is_not_there_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let tables = namespaces(&[("dev", &[Protection::Software])]);
    // Two lines of the test's own stand before.
    let first = 3 + tables.lines().count();
    for (grant, words) in [
        ("users = [0]\nnamespaces = [\"dve\"]", "Did you mean dev?"),
        ("users = [0]\ngroups = [\"no-such-group\"]", "group \"no-such-group\", which does not exist"),
    ] {
        let text = format!("{tables}[[allow]]\noperations = [\"status\"]\n{grant}\n");
        let file = configure(dir.path(), &text).unwrap();
        let words = [words, &format!("{}:{}:", file.display(), first + 3)];
        refused_start(&file).await.is(FAILED, Reason::BadConfig, &words);
        refused_check(&file).await.is(FAILED, Reason::BadConfig, &words);
    }
}

#[tokio::test]
async fn an_issuance_profile_that_is_wrong_is_named_with_line_and_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let tables = namespaces(&[("dev", &[Protection::Software])]);
    // Two lines of the test's own stand before.
    let first = 3 + tables.lines().count();
    for (good, bad, line, words) in [
        ("own", "onw", first + 3, &["`onw`", "Did you mean \"own\"?"][..]),
        ("dev/", "dve/", first + 1, &["dve/ca", "Did you mean dev?"]),
        ("1day", "-1day", first + 3, &["\"-1day\"", "30days"]),
        ("own = { lifetime = \"1day\" }\n", "", first, &["give it own, ca or leaf"]),
        (
            "own = {",
            "leaf = { ids = [\"spiffe://td/a*\"], algorithms = [\"ml-dsa-65\"],",
            first + 3,
            &["spiffe://td/a*", "spiffe://example.org/field/*"],
        ),
    ] {
        let text = format!("{tables}{}", PROFILE.replace(good, bad));
        let file = configure(dir.path(), &text).unwrap();
        let place = format!("{}:{line}:", file.display());
        refused_start(&file).await.is(FAILED, Reason::BadConfig, &[words, &[&place]].concat());
    }
}

#[tokio::test]
async fn a_key_that_signs_digests_is_neither_started_with_nor_made_under_a_profile() {
    let words = ["names dev/ca", "only ML-DSA keys", "x509_ca_algorithm", "take it off the table"];
    for algorithm in ["ec-p256", "rsa-2048"] {
        let (dir, keyd) = software().await;
        keyd.json(&["key", "create", "dev/ca", "--algorithm", algorithm]).await.unwrap();
        keyd.stop().await.unwrap();
        let tables = namespaces(&[("dev", &[Protection::Software])]);
        let file = configure(dir.path(), &format!("{tables}{PROFILE}")).unwrap();
        let refused = refused_start(&file).await;
        refused.is(FAILED, Reason::BadConfig, &[&words[..], &[algorithm]].concat());

        configure(dir.path(), &format!("{tables}{}", PROFILE.replace("dev/ca", "dev/other"))).unwrap();
        let keyd = Keyd::restart(dir.path()).await.unwrap();
        let make = ["key", "create", "dev/other", "--algorithm", algorithm];
        let words = ["names dev/other", "only ML-DSA keys", algorithm];
        refusal(&keyd, &make).await.is(FAILED, Reason::BadRequest, &words);
        keyd.json(&["key", "create", "dev/other", "--algorithm", "ml-dsa-44"]).await.unwrap();
    }
}

#[tokio::test]
async fn a_pin_file_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let pin = dir.path().join("pin");
    fs::write(&pin, token.user_pin).unwrap();
    set_mode(&pin, 0o640);
    let config = token_table(&token, &pin) + &namespaces(&[("hsm", &[Protection::Hsm])]);
    let refusal = refused_start(&configure(dir.path(), &config).unwrap()).await;
    refusal.is(FAILED, Reason::BadConfig, &[&pin.display().to_string(), "mode 0640", "chmod 0600"]);
    assert!(!refusal.message.contains(token.user_pin));
}

#[tokio::test]
async fn a_second_keyd_on_the_same_state_is_refused_and_the_first_goes_on() {
    let (dir, keyd) = software().await;
    let second = dir.path().join("second");
    let config = configure(&second, "").unwrap();
    let state = dir.path().join("state");
    fs::write(&config, format!("socket = \"{}/keyd.sock\"\nstate_dir = {state:?}\n", second.display()))
        .unwrap();
    let store = state.join("keys.redb").display().to_string();
    refused_start(&config).await.is(FAILED, Reason::StoreFailed, &[&store, "another keyd"]);

    let same_socket = format!("socket = {:?}\nstate_dir = \"{}/state\"\n", keyd.socket(), second.display());
    fs::write(&config, same_socket).unwrap();
    let socket = keyd.socket().display().to_string();
    refused_start(&config).await.is(FAILED, Reason::BadConfig, &[&socket, "another process listens"]);
    keyd.json(&["key", "create", "dev/still-there"]).await.unwrap();
}

#[tokio::test]
async fn a_state_directory_that_others_may_enter_or_own_is_refused() {
    let (dir, keyd) = software().await;
    keyd.stop().await.unwrap();
    let state = dir.path().join("state");
    set_mode(&state, 0o750);
    let remedy = format!("chmod 0700 {}", state.display());
    let config = dir.path().join("keyd.toml");
    refused_start(&config).await.is(FAILED, Reason::StoreFailed, &["0750", &remedy]);
    set_mode(&state, 0o700);
    if nix::unistd::geteuid().is_root() {
        chown(&state, Some(65534), None).unwrap();
        let words = ["belongs to user nobody", "keyd runs as root", "runuser -u nobody -- keyd"];
        refused_start(&config).await.is(FAILED, Reason::StoreFailed, &words);
        chown(&state, Some(0), None).unwrap();
    }
    Keyd::restart(dir.path()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_store_is_refused_whole_and_its_backup_is_taken() {
    let (dir, keyd) = software().await;
    for n in 0..8 {
        keyd.json(&["key", "create", &format!("dev/key-{n}")]).await.unwrap();
    }
    let public = keyd.client().show_key(&"dev/key-3".parse().unwrap()).await.unwrap().public_key;
    keyd.stop().await.unwrap();
    let store = dir.path().join("state/keys.redb");
    let whole = fs::read(&store).unwrap();
    let garbage = |range: std::ops::Range<usize>| {
        let mut bytes = whole.clone();
        bytes[range].fill(0xa5);
        bytes
    };
    // Wherever the file holds the key, also in pages that it no longer uses.
    let mut one_bit = whole.clone();
    for at in (0..whole.len()).filter(|at| whole[*at..].starts_with(public.raw())) {
        one_bit[at] ^= 1;
    }
    assert_ne!(one_bit, whole);
    let damages = [
        ("no store", b"not a store".to_vec()),
        ("a header that was overwritten", garbage(0..512)),
        ("half of it", whole[..whole.len() / 2].to_vec()),
        ("everything behind the header", garbage(4096..whole.len())),
        ("one bit of a public key", one_bit),
    ];
    for (what, bytes) in damages {
        fs::write(&store, bytes).unwrap();
        let refusal = refused_start(&dir.path().join("keyd.toml")).await;
        println!("{what}: {}", refusal.message);
        refusal.is(FAILED, Reason::StoreFailed, &[&store.display().to_string(), "backup"]);
    }
    fs::write(&store, whole).unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    assert_eq!(keyd.client().list_keys(None).await.unwrap().len(), 8);
}

/// keyd whose clock stands so many days before the true one.
pub async fn start_days_ago(dir: &Path, days: u32) -> Keyd {
    let mut serve = serve(&dir.join("keyd.toml")).unwrap();
    serve
        // The dynamic linker knows where this machine's libraries are.
        .env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1")
        .env("FAKETIME", format!("-{days}d"))
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Keyd::by(&mut serve, dir.join("keyd.sock"), &dir.join("keyd.log")).await.unwrap()
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_told_and_every_key_goes_on() {
    /// Ten years, of which some had 366 days.
    const DAYS: u32 = 3650;
    let (dir, keyd) = software().await;
    let key = "dev/a".parse().unwrap();
    keyd.client().create_key(&key, Algorithm::MlDsa65, None).await.unwrap();
    keyd.stop().await.unwrap();

    let keyd = start_days_ago(dir.path(), DAYS).await;
    let client = keyd.client();
    let before = client.show_key(&key).await.unwrap();
    client.sign(&key, SignInput::Message(b"m")).await.unwrap();
    let findings = client.doctor().await.unwrap();
    let [clock] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!(clock.subject, "the clock");
    let told: i64 = clock.problem.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!((told - i64::from(DAYS) * 86_400).abs() < 3600, "{clock:?}");
    assert!(clock.problem.contains("dev/a") && clock.next_step.starts_with("set it"), "{clock:?}");
    // A successor is told by its version, not by its time.
    let after = client.rotate_key(&key, None, None).await.unwrap();
    assert_eq!(after.version, before.version + 1);
    assert!(after.created_at < before.created_at);
    client.sign(&key, SignInput::Message(b"m")).await.unwrap();
}
