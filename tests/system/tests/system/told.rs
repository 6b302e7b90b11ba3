//! What keyd tells a person who looks: status, lists that are empty, and its name among the processes.

use std::fs;

use keyd_core::Protection;
use nix::unistd::Pid;
use peers::token::Token;
use system::keyd::{Keyd, namespaces, token_table, write_private};

/// What `keyd ARGS` prints for people.
async fn said(keyd: &Keyd, args: &[&str]) -> String {
    let output = keyd.output(args).await.unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn status_names_every_ca_key_that_no_issuance_profile_guards_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let soft = &[Protection::Software][..];
    let profile = "[[issuance]]\nkeys = [\"guarded/root\", \"spire-server/named\"]\ntrust_domain = \"td\"\nown = { lifetime = \"1day\" }\n";
    let config = namespaces(&[("spire-root", soft), ("spire-server", soft), ("guarded", soft)]) + profile;
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let root = dir.path().join("root.pem").display().to_string();
    keyd.json(&["ca", "init", "--trust-domain", "td", "--out", &root]).await.unwrap();
    for (key, algorithm) in [
        ("guarded/root", "ml-dsa-87"),
        ("spire-server/named", "ml-dsa-65"),
        ("spire-server/x509-CA-A", "ml-dsa-65"),
        ("spire-server/x509-CA-B", "ec-p256"),
        ("spire-server/JWT-Signer-A", "ec-p256"),
        ("spire-server/leaf", "ml-dsa-65"),
    ] {
        keyd.json(&["key", "create", key, "--algorithm", algorithm]).await.unwrap();
    }
    let status = said(&keyd, &["status"]).await;
    let lines: Vec<_> = status.lines().filter_map(|line| line.strip_prefix("CA key ")).collect();
    let expected = [
        ("guarded/root (ml-dsa-87)", "what its issuance profile allows"),
        ("spire-root/root (ml-dsa-87)", "an [[issuance]] table would guard it"),
        ("spire-server/named (ml-dsa-65)", "what its issuance profile allows"),
        ("spire-server/x509-CA-A (ml-dsa-65)", "an [[issuance]] table would guard it"),
        ("spire-server/x509-CA-B (ec-p256)", "no issuance profile can guard it"),
    ];
    assert_eq!(lines.len(), expected.len(), "{status}");
    for (line, (key, words)) in lines.iter().zip(expected) {
        assert!(line.starts_with(key) && line.contains(words), "{line}");
    }
}

#[tokio::test]
async fn a_list_that_is_empty_says_so_to_people_and_is_an_empty_list_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = Keyd::start(dir.path(), &namespaces(&[("dev", &[Protection::Software])])).await.unwrap();
    for (args, words, list) in [
        (&["key", "list"][..], "no keys\n", "keys"),
        (&["audit", "show", "--event", "key-deleted"], "no record is like that\n", "records"),
        (&["audit", "certificates"], "no certificates; what CA keys without", "certificates"),
        (&["doctor"], "all is well\n", "findings"),
    ] {
        let said = said(&keyd, args).await;
        assert!(said.starts_with(words), "{args:?}: {said:?}");
        assert_eq!(keyd.json(args).await.unwrap()[list], serde_json::json!([]), "{args:?}");
    }
}

#[tokio::test]
async fn keyd_and_its_worker_are_found_among_the_processes_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let pin = dir.path().join("pin");
    write_private(&pin, token.user_pin).unwrap();
    let config = token_table(&token, &pin) + &namespaces(&[("n", &[Protection::Hsm])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    keyd.json(&["key", "create", "n/a", "--algorithm", "ec-p256"]).await.unwrap();
    let name = |pid: Pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name(keyd.process.pid().unwrap()), "keyd\n");
    assert_eq!(name(keyd.worker().unwrap()), "keyd-pkcs11\n");
}
