//! Every command with `--json`.

use std::collections::BTreeSet;
use std::fs;

use keyd_core::{Protection, Reason};
use keyd_escrow::OperatorKey;
use peers::swtpm::Swtpm;
use peers::token::Token;
use serde_json::Value;
use system::keyd::{Keyd, namespaces, token_table, write_private};

use crate::refusals::{USAGE, refusal};

/// Commands that print nothing of their own, or that need what the tests of theirs prepare.
const ELSEWHERE: [&str; 5] =
    ["serve", "accept-store", "audit restart", "token remove-orphan", "token seal-pin"];

/// The commands that a help text lists.
async fn listed(keyd: &Keyd, group: &[&str]) -> Vec<String> {
    let help = keyd.output(&[group, &["--help"]].concat()).await.unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let named = commands.take_while(|line| !line.is_empty()).filter_map(|line| {
        // A description that goes on in a further line is indented deeper.
        let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?;
        name.split_whitespace().next().map(str::to_owned)
    });
    named.filter(|name| name != "help").collect()
}

#[tokio::test]
async fn every_command_prints_json_where_it_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    for (name, secret) in [("pin", token.user_pin), ("so-pin", token.so_pin)] {
        write_private(&dir.path().join(name), secret).unwrap();
    }
    let operator = OperatorKey::generate().unwrap();
    fs::write(path("recipient"), operator.recipient().to_pem().unwrap()).unwrap();
    write_private(
        &dir.path().join("operator"),
        std::str::from_utf8(operator.to_pem().unwrap().expose()).unwrap(),
    )
    .unwrap();
    let config = token_table(&token, &dir.path().join("pin"))
        + &format!("[tpm]\ntcti = {:?}\n[escrow]\nrecipient = {:?}\n", tpm.tcti(), path("recipient"))
        + &namespaces(&[("n", &[Protection::TpmSealed, Protection::Software])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    fs::write(path("letter"), "letter").unwrap();
    fs::write(path("sealed"), [0; 1088]).unwrap();

    let environment: Vec<_> = token.environment.iter().map(|(name, dir)| format!("{name}={dir}")).collect();
    let module = token.module.display().to_string();
    let pcr = format!("16={}", "0".repeat(64));
    let mut commands = vec![
        format!("config check --config {}", path("keyd.toml")),
        "key create n/a".to_owned(),
        "key create n/kem --algorithm ml-kem-768".to_owned(),
        "key list".to_owned(),
        "key show n/a".to_owned(),
        "key public n/a".to_owned(),
        format!("key public n/a --format der --out {}", path("public")),
        format!("key sign n/a --in {} --out {}", path("letter"), path("signature")),
        format!("key verify n/a --in {} --signature {}", path("letter"), path("signature")),
        format!("key decapsulate n/kem --in {} --out {}", path("sealed"), path("shared")),
        "key rotate n/a".to_owned(),
        "key migrate n/a --to software --weaker".to_owned(),
        "key delete n/kem".to_owned(),
        format!("ca init n/root --trust-domain example.org --out {}", path("root.pem")),
        "node show".to_owned(),
        "node srk".to_owned(),
        format!("token list --config {}", path("keyd.toml")),
        "status".to_owned(),
        "doctor".to_owned(),
        "metrics".to_owned(),
        "reseal".to_owned(),
        format!("escrow new-recipient --out-public {} --out-private {}", path("new.pub"), path("new")),
        format!("escrow export --out {}", path("escrow")),
        format!("escrow restore --in {} --key {}", path("escrow"), path("operator")),
        "audit verify".to_owned(),
        "audit show".to_owned(),
        "audit certificates".to_owned(),
        "audit key".to_owned(),
        format!("audit key --out {}", path("audit.pem")),
    ];
    let mut init = format!(
        "token init --module {module} --label second --so-pin-file {} --pin-file {}",
        path("so-pin"),
        path("pin")
    );
    environment.iter().for_each(|value| init.push_str(&format!(" --environment {value}")));
    commands.push(init);
    let policy = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-out", &path("policy.key")])
        .output()
        .unwrap();
    assert!(policy.status.success());
    commands.push(format!(
        "tpm sign-policy --key {} --out {} --pcr {pcr}",
        path("policy.key"),
        path("policy")
    ));

    for command in &commands {
        let args: Vec<_> = command.split(' ').collect();
        let printed: Value = keyd.json(&args).await.unwrap_or_else(|error| panic!("{command}: {error:#}"));
        assert!(printed.is_object(), "{command}: {printed}");
    }
    let mut every = BTreeSet::new();
    for command in listed(&keyd, &[]).await {
        let below = listed(&keyd, &[&command]).await;
        let whole = below.iter().map(|name| format!("{command} {name}"));
        every.extend(if below.is_empty() { vec![command.clone()] } else { whole.collect() });
    }
    let tried = |whole: &String| commands.iter().any(|command| command.starts_with(whole.as_str()));
    let untried: Vec<_> = every.iter().filter(|whole| !tried(whole)).collect();
    assert_eq!(untried, ELSEWHERE.iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn wrong_usage_is_told_in_json_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = Keyd::start(dir.path(), &namespaces(&[("n", &[Protection::Software])])).await.unwrap();
    let long = format!("n/{}", "a".repeat(10_000));
    for (args, reason, word) in [
        (&["key", "show", "no-slash"][..], Reason::BadKeyId, "NAMESPACE/"),
        (&["key", "show", "n/a/b"], Reason::BadKeyId, "/"),
        (&["key", "show", &long], Reason::BadKeyId, "1 to 128"),
        (&["key", "create", "n/a", "--algorithm", "ml-dsa65"], Reason::UnknownAlgorithm, "ml-dsa-65"),
        (&["key", "create", "n/a", "--protection", "hsn"], Reason::UnknownProtection, "hsm"),
        (&["key", "crate", "n/a"], Reason::BadRequest, "create"),
        (&["key", "show"], Reason::BadRequest, "KEY"),
    ] {
        refusal(&keyd, args).await.is(USAGE, reason, &[word]);
    }
}
