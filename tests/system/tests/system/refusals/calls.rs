//! Calls that keyd does not take.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use keyd_api::v1::key_service_client::KeyServiceClient;
use keyd_api::v1::{self, sign_request::Input};
use keyd_api::{ENVELOPE, MESSAGE_LIMIT, status, unix_channel};
use keyd_core::{Failure, Protection, Reason};
use system::keyd::{Keyd, namespaces};
use system::other_user::keyd_as_another_user;
use tonic::transport::Channel;

use super::{DENIED, EXISTS, FAILED, NO_SUCH_KEY, Refusal, UNREACHABLE, USAGE, refusal, software};

/// A client that checks nothing before it sends.
fn raw(keyd: &Keyd) -> KeyServiceClient<Channel> {
    KeyServiceClient::new(unix_channel(keyd.socket())).max_encoding_message_size(usize::MAX)
}

async fn sign(keyd: &Keyd, key: &str, input: Input) -> Result<v1::SignResponse, Failure> {
    let request = v1::SignRequest { key: key.to_owned(), input: Some(input), ..Default::default() };
    let response = raw(keyd).sign(request).await;
    response.map(tonic::Response::into_inner).map_err(|s| status::to_failure(&s, "its socket"))
}

async fn create(keyd: &Keyd, key: &str, algorithm: &str, protection: &str) -> Failure {
    let request =
        v1::CreateKeyRequest { key: key.into(), algorithm: algorithm.into(), protection: protection.into() };
    status::to_failure(&raw(keyd).create_key(request).await.unwrap_err(), "its socket")
}

#[track_caller]
fn assert_refused(failure: &Failure, reason: Reason, words: &[&str]) {
    assert_eq!(failure.reason, reason, "{failure}");
    for word in words {
        assert!(failure.message.contains(word), "{word:?} is not in {:?}", failure.message);
    }
}

/// What the command line refuses before it asks keyd.
async fn assert_misused(keyd: &Keyd, args: &[&str], words: &[&str]) {
    let output = keyd.output(args).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(USAGE), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
}

#[tokio::test]
async fn names_that_are_not_known_are_told_with_those_that_are() {
    let (_dir, keyd) = software().await;
    let algorithms = ["\"ml-dsa65\"", "Did you mean ml-dsa-65?", "ml-dsa-44", "ec-p384"];
    assert_misused(&keyd, &["key", "create", "dev/a", "--algorithm", "ml-dsa65"], &algorithms).await;
    assert_refused(&create(&keyd, "dev/a", "ml-dsa65", "").await, Reason::UnknownAlgorithm, &algorithms);
    let protections = ["\"hms\"", "Did you mean hsm?", "tpm-sealed"];
    assert_misused(&keyd, &["key", "create", "dev/a", "--protection", "hms"], &protections).await;
    assert_refused(
        &create(&keyd, "dev/a", "ml-dsa-65", "hms").await,
        Reason::UnknownProtection,
        &protections,
    );
}

#[tokio::test]
async fn a_bad_key_id_is_refused_by_command_and_service() {
    let (_dir, keyd) = software().await;
    let long = format!("dev/{}", "x".repeat(10 * 1024));
    for id in ["dev/..", "../dev", "dev/a/b", "dev", "dev/", "Dev/a", "dev/a b", &long] {
        assert_misused(&keyd, &["key", "show", id], &["it must be"]).await;
    }
    for id in ["dev/..", "../dev", "dev/a\0", "dev\0/a", "", &long] {
        let failure = create(&keyd, id, "ml-dsa-65", "").await;
        assert_refused(&failure, Reason::BadKeyId, &["it must be"]);
        assert!(failure.message.len() < 300, "it does not repeat 10 kB");
    }
    assert_eq!(keyd.client().list_keys(None).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_key_that_is_not_there_or_is_there_already_is_named() {
    let (_dir, keyd) = software().await;
    for command in [&["key", "show", "dev/a"][..], &["key", "rotate", "dev/a"], &["key", "delete", "dev/a"]] {
        refusal(&keyd, command).await.is(NO_SUCH_KEY, Reason::KeyNotFound, &["dev/a", "keyd key list"]);
    }
    keyd.json(&["key", "create", "dev/a"]).await.unwrap();
    let words = ["dev/a", "keyd key rotate dev/a"];
    refusal(&keyd, &["key", "create", "dev/a"]).await.is(EXISTS, Reason::KeyExists, &words);
}

#[tokio::test]
async fn a_message_of_more_than_a_mebibyte_is_refused_by_command_and_service() {
    let (dir, keyd) = software().await;
    keyd.json(&["key", "create", "dev/a"]).await.unwrap();
    let (file, out) = (dir.path().join("letter"), dir.path().join("signature"));
    let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
    let command = ["key", "sign", "dev/a", "--in", file, "--out", out];
    fs::write(file, vec![7; MESSAGE_LIMIT]).unwrap();
    keyd.json(&command).await.unwrap();
    keyd.json(&["key", "verify", "dev/a", "--in", file, "--signature", out]).await.unwrap();
    fs::write(file, vec![7; MESSAGE_LIMIT + 1]).unwrap();
    refusal(&keyd, &command).await.is(FAILED, Reason::BadRequest, &[file, "1048576 bytes"]);

    // One that fits the envelope, and one that no longer does.
    for (length, reason) in [
        (MESSAGE_LIMIT + 1, Reason::BadRequest),
        (MESSAGE_LIMIT + ENVELOPE + 1, Reason::LimitExceeded),
        (64 * MESSAGE_LIMIT, Reason::LimitExceeded),
    ] {
        let failure = sign(&keyd, "dev/a", Input::Message(vec![7; length].into())).await.unwrap_err();
        assert_refused(&failure, reason, &["1048576 bytes"]);
    }
    sign(&keyd, "dev/a", Input::Message(b"it goes on".to_vec().into())).await.unwrap();
}

#[tokio::test]
async fn another_user_is_denied_whatever_it_asks() {
    let (dir, keyd) = software().await;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    keyd.json(&["key", "create", "dev/a"]).await.unwrap();
    for (command, asked) in [
        (&["key", "list"][..], "list"),
        (&["key", "list", "dev"], "list in namespace dev"),
        (&["key", "show", "dev/a"], "show in namespace dev"),
        (&["key", "create", "dev/b"], "create in namespace dev"),
        (&["key", "create", "nowhere/b"], "create in namespace nowhere"),
        (&["key", "rotate", "dev/a"], "rotate in namespace dev"),
        (&["key", "delete", "dev/a"], "delete in namespace dev"),
        (&["key", "sign", "dev/a", "--in", "keyd.toml", "--out", "-"], "sign in namespace dev"),
        (&["node", "show"], "attest"),
        (&["status"], "status"),
    ] {
        let args = [&["--json"], command].concat();
        let output = keyd_as_another_user(dir.path(), "keyd.sock", &args).await.unwrap();
        assert!(output.stdout.is_empty(), "{command:?}");
        let refusal = Refusal::of(&output);
        refusal.is(DENIED, Reason::Denied, &["user ", &format!("no right to {asked}."), "[[allow]]"]);
    }
    let log = keyd.process.log().unwrap();
    assert!(log.contains("denied") && log.contains("operation=delete"), "{log}");
    assert_eq!(keyd.client().list_keys(None).await.unwrap()[0].version, 1);
}

#[tokio::test]
async fn a_namespace_that_is_not_configured_is_named_and_one_that_the_caller_may_use_is_suggested() {
    let locked = "[[namespace]]\nname = \"locked\"\nprotections = [\"software\"]\n";
    let dir = tempfile::tempdir().unwrap();
    let config = namespaces(&[("dev", &[Protection::Software])]) + locked;
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let words = ["namespace dve", "Did you mean dev?", "keyd.toml", "[[namespace]]"];
    for command in [["key", "create", "dve/a"], ["key", "show", "dve/a"], ["key", "list", "dve"]] {
        refusal(&keyd, &command).await.is(FAILED, Reason::UnknownNamespace, &words);
    }
    let stranger = refusal(&keyd, &["key", "list", "lokced"]).await;
    stranger.is(FAILED, Reason::UnknownNamespace, &["namespace lokced is not in keyd.toml; add"]);
}

#[tokio::test]
async fn a_protection_that_the_namespace_does_not_accept_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tpm = "[tpm]\ntcti = \"device:/dev/no-such-tpm\"\n".to_owned();
    let config = tpm + &namespaces(&[("sealed", &[Protection::TpmSealed])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let create = refusal(&keyd, &["key", "create", "sealed/a", "--protection", "software"]).await;
    let words = ["namespace sealed accepts tpm-sealed, not software"];
    create.is(FAILED, Reason::ProtectionUnavailable, &words);
    assert_eq!(keyd.client().list_keys(None).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_digest_that_the_key_does_not_sign_is_refused() {
    let (_dir, keyd) = software().await;
    keyd.json(&["key", "create", "dev/ml"]).await.unwrap();
    keyd.json(&["key", "create", "dev/ec", "--algorithm", "ec-p256"]).await.unwrap();
    let digest = |hash: v1::Hash, length| {
        Input::Digest(v1::Digest { hash: hash.into(), value: vec![1; length].into() })
    };
    let refused = async |key, input| sign(&keyd, key, input).await.unwrap_err();
    let ml_dsa = refused("dev/ml", digest(v1::Hash::Sha256, 32)).await;
    assert_refused(&ml_dsa, Reason::BadRequest, &["ml-dsa-65 signs whole messages, not digests"]);
    for length in [0, 31, 33, 48] {
        let words = [format!("{length} bytes"), "gives 32".to_owned()];
        let failure = refused("dev/ec", digest(v1::Hash::Sha256, length)).await;
        assert_refused(&failure, Reason::BadRequest, &words.each_ref().map(String::as_str));
    }
    let no_hash = refused("dev/ec", digest(v1::Hash::Unspecified, 32)).await;
    assert_refused(&no_hash, Reason::BadRequest, &["the hash that made it"]);
    sign(&keyd, "dev/ec", digest(v1::Hash::Sha384, 48)).await.unwrap();
}

#[tokio::test]
async fn a_keyd_that_does_not_run_is_told_by_its_socket() {
    let (_dir, keyd) = software().await;
    let socket = keyd.socket().display().to_string();
    let mut show = tokio::process::Command::new(system::binary("keyd").unwrap());
    show.args(["--json", "--socket", &socket, "key", "list"]);
    keyd.stop().await.unwrap();
    let refusal = Refusal::of(&show.output().await.unwrap());
    refusal.is(UNREACHABLE, Reason::Unreachable, &[&socket, "keyd serve"]);
}
