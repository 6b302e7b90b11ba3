//! `keyd token list`, and objects in a token that no key uses.

use std::path::Path;
use std::process::{Output, Stdio};

use keyd_core::Protection;
use nix::sys::signal::{Signal, kill};
use peers::token::Token;
use serde_json::Value;
use system::binary;
use system::keyd::{Keyd, configure, namespaces, token_with_pin};
use tokio::process::Command;

/// Runs `keyd ARGS` where no keyd runs.
async fn alone(args: &[&str]) -> Output {
    let mut keyd = Command::new(binary("keyd").unwrap());
    keyd.args(args).args(["--socket", "/nonexistent/keyd.sock"]).stdin(Stdio::null()).output().await.unwrap()
}

fn configured(dir: &Path, token: &Token) -> String {
    token_with_pin(token, dir).unwrap() + &namespaces(&[("n", &[Protection::Hsm])])
}

#[tokio::test]
async fn tokens_are_listed_without_a_running_keyd_and_the_one_that_it_uses_is_named() {
    for make in [Token::softhsm, Token::kryoptic] {
        let dir = tempfile::tempdir().unwrap();
        let token = make(dir.path()).unwrap();
        let config = configure(dir.path(), &configured(dir.path(), &token)).unwrap();
        let config = config.to_str().unwrap();
        let output = alone(&["--json", "token", "list", "--config", config]).await;
        assert!(output.status.success(), "{output:?}");
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let tokens = listed["tokens"].as_array().unwrap();
        let used: Vec<_> = tokens.iter().filter(|token| token["used"] == true).collect();
        let [used] = used[..] else { panic!("{listed}") };
        assert_eq!(
            (&used["label"], &used["state"], &used["wraps"]),
            (&"field-kit".into(), &"ready".into(), &true.into())
        );
        assert!(used["algorithms"].as_array().unwrap().contains(&"ec-p256".into()), "{used}");
        assert!(!used["serial"].as_str().unwrap().is_empty() && used["product"].is_string(), "{used}");

        let human = String::from_utf8(alone(&["token", "list", "--config", config]).await.stdout).unwrap();
        assert!(human.contains("\"field-kit\"") && human.contains("keyd uses it"), "{human}");
    }
}

#[tokio::test]
async fn of_two_tokens_of_a_label_none_is_used_and_both_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    token.add_twin("another-pin").unwrap();
    let config = configured(dir.path(), &token);
    let file = configure(dir.path(), &config).unwrap();
    let list = ["token", "list", "--config", file.to_str().unwrap()];
    let output = alone(&[&["--json"][..], &list].concat()).await;
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tokens = listed["tokens"].as_array().unwrap();
    let twins: Vec<_> = tokens.iter().filter(|token| token["label"] == "field-kit").collect();
    assert_eq!(twins.len(), 2, "{listed}");
    assert!(tokens.iter().all(|token| token["used"] == false), "{listed}");
    let human = String::from_utf8(alone(&list).await.stdout).unwrap();
    assert_eq!(human.matches("the configuration names another one too").count(), 2, "{human}");

    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let refused = keyd.output(&["--json", "key", "create", "n/a", "--algorithm", "ec-p256"]).await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("TOKEN_ABSENT") && said.contains("shows 2 such tokens"), "{said}");
    for twin in twins {
        assert!(said.contains(twin["serial"].as_str().unwrap()), "{said}");
    }
}

#[tokio::test]
async fn a_blank_token_is_listed_as_such_and_a_missing_module_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::blank_softhsm(dir.path()).unwrap();
    let (name, value) = token.environment.first_key_value().unwrap();
    let environment = format!("{name}={value}");
    let module = token.module.to_str().unwrap();
    let output = alone(&["--json", "token", "list", "--module", module, "--environment", &environment]).await;
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&listed["tokens"][0]["state"], &listed["tokens"][0]["used"]),
        (&"blank".into(), &false.into())
    );

    let output = alone(&["--json", "token", "list", "--module", "/nonexistent/libvendor.so"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("TOKEN_ABSENT") && said.contains("/nonexistent/libvendor.so"), "{said}");
    assert_eq!(output.status.code(), Some(5));
}

/// The objects that no key uses, as the doctor names them.
async fn orphans(keyd: &Keyd) -> Vec<String> {
    let found: Value =
        serde_json::from_slice(&keyd.output(&["--json", "doctor"]).await.unwrap().stdout).unwrap();
    let steps =
        found["findings"].as_array().unwrap().iter().map(|f| f["next_step"].as_str().unwrap().to_owned());
    steps.filter_map(|step| Some(step.split_once("keyd token remove-orphan ")?.1.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_no_key_uses_is_removed_and_that_of_a_key_never() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let keyd = Keyd::start(dir.path(), &configured(dir.path(), &token)).await.unwrap();
    keyd.json(&["key", "create", "n/lost", "--algorithm", "ec-p256"]).await.unwrap();
    keyd.stop().await.unwrap();
    // The store goes, the token stays.
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    keyd.json(&["key", "create", "n/kept", "--algorithm", "ec-p256"]).await.unwrap();
    let found = orphans(&keyd).await;
    let [object] = &found[..] else { panic!("{found:?}") };

    // The right to it is one of its own.
    let remove = ["--json", "token", "remove-orphan", object, "--yes"];
    let denied = keyd.output(&remove).await.unwrap();
    assert_eq!(denied.status.code(), Some(3), "{denied:?}");
    let may = configured(dir.path(), &token).replace("\"status\"", "\"status\", \"repair\"");
    configure(dir.path(), &may).unwrap();
    kill(keyd.process.pid().unwrap(), Signal::SIGHUP).unwrap();
    while keyd.output(&["token", "remove-orphan", "00", "--yes"]).await.unwrap().status.code() == Some(3) {}

    // Without a terminal and without --yes nothing is done.
    let unsure = keyd.output(&["token", "remove-orphan", object]).await.unwrap();
    assert!(String::from_utf8_lossy(&unsure.stderr).contains("give --yes"), "{unsure:?}");
    assert_eq!(orphans(&keyd).await, found);

    let removed = keyd.json(&remove[1..]).await.unwrap();
    assert_eq!((&removed["label"], &removed["removed"]), (&"n/lost".into(), &true.into()));
    assert!(orphans(&keyd).await.is_empty());
    let log = keyd.process.log().unwrap();
    assert!(log.contains("token object removed") && log.contains(object.as_str()), "{log}");
    let gone = keyd.output(&remove).await.unwrap();
    assert_eq!(gone.status.code(), Some(4), "{gone:?}");
    let long = "00".repeat(10_000);
    let strange = keyd.output(&["token", "remove-orphan", &long, "--yes"]).await.unwrap();
    assert!(
        String::from_utf8_lossy(&strange.stderr).contains("CKA_ID of 16 bytes, this one has 10000"),
        "{strange:?}"
    );
    let recorded = keyd.json(&["audit", "show", "--event", "orphan-removed"]).await.unwrap();
    let [removal] = &recorded["records"].as_array().unwrap()[..] else { panic!("{recorded}") };
    let told = ["object", "label", "result"].map(|name| removal[name].as_str().unwrap());
    assert_eq!(told, [object.as_str(), "n/lost", "ok"]);
    assert_eq!(removal["uid"], nix::unistd::geteuid().as_raw());

    // Of the object of a key it is refused, in words. The doctor of an empty store names it.
    keyd.stop().await.unwrap();
    std::fs::rename(dir.path().join("state"), dir.path().join("kept-state")).unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let [kept] = &orphans(&keyd).await[..] else { panic!() };
    let kept = kept.clone();
    keyd.stop().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    std::fs::rename(dir.path().join("kept-state"), dir.path().join("state")).unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let refused = keyd.output(&["token", "remove-orphan", &kept, "--yes"]).await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("is the private key of n/kept") && said.contains("keyd key delete n/kept"),
        "{said}"
    );
    let signed = keyd.client().sign(&"n/kept".parse().unwrap(), keyd_core::SignInput::Message(b"m")).await;
    signed.unwrap();
}
