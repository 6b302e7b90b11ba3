//! `keyd metrics` says what happened.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use forge::Forge;
use keyd_core::{Algorithm, Protection, Reason, SignInput};
use nix::sys::signal::{Signal, kill};
use peers::token::Token;
use system::keyd::{Keyd, namespaces, token_with_pin};
use system::minter::Local;
use system::other_user::keyd_as_another_user;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// The value of a sample, None where there is no such series.
fn sample(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(&format!("{series} ")))?;
    Some(line.rsplit(' ').next().unwrap().parse().unwrap())
}

async fn metrics(keyd: &Keyd) -> String {
    let output = keyd.output(&["metrics"]).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_counted_by_kind_namespace_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let (either, soft) = ([Protection::Hsm, Protection::HsmWrapped], [Protection::Software]);
    let tables: &[(&str, &[Protection])] = &[("either", &either), ("soft", &soft)];
    let config = token_with_pin(&token, dir.path()).unwrap() + &namespaces(tables);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    let client = keyd.client();

    // One key where the namespace would have it, one that fell back, one in software.
    for (key, algorithm) in
        [("either/ec", Algorithm::EcP256), ("either/ml", Algorithm::MlDsa65), ("soft/a", Algorithm::EcP256)]
    {
        client.create_key(&key.parse().unwrap(), algorithm, None).await.unwrap();
    }
    let (held, soft) = ("either/ec".parse().unwrap(), "soft/a".parse().unwrap());
    for _ in 0..3 {
        client.sign(&held, SignInput::Message(b"m")).await.unwrap();
    }
    client.sign(&soft, SignInput::Message(b"m")).await.unwrap();
    client.sign(&"soft/none".parse().unwrap(), SignInput::Message(b"m")).await.unwrap_err();
    client.create_key(&soft, Algorithm::EcP256, None).await.unwrap_err();
    keyd_as_another_user(dir.path(), "keyd.sock", &["key", "delete", "soft/a"]).await.unwrap();
    // A second worker.
    kill(keyd.worker().unwrap(), Signal::SIGKILL).unwrap();
    client.sign(&held, SignInput::Message(b"m")).await.unwrap();

    let text = metrics(&keyd).await;
    for (series, value) in [
        ("keyd_keys{protection=\"hsm\",algorithm=\"ec-p256\"}", 1.0),
        ("keyd_keys{protection=\"hsm-wrapped\",algorithm=\"ml-dsa-65\"}", 1.0),
        ("keyd_keys{protection=\"software\",algorithm=\"ec-p256\"}", 1.0),
        ("keyd_operations_total{operation=\"create\",namespace=\"either\"}", 2.0),
        ("keyd_operations_total{operation=\"sign\",namespace=\"either\"}", 4.0),
        ("keyd_operations_total{operation=\"sign\",namespace=\"soft\"}", 1.0),
        ("keyd_failures_total{operation=\"sign\",namespace=\"soft\",reason=\"KEY_NOT_FOUND\"}", 1.0),
        ("keyd_failures_total{operation=\"create\",namespace=\"soft\",reason=\"KEY_EXISTS\"}", 1.0),
        ("keyd_operation_duration_seconds_count{operation=\"sign\",protection=\"hsm\"}", 4.0),
        (
            "keyd_operation_duration_seconds_bucket{le=\"+Inf\",operation=\"sign\",protection=\"software\"}",
            1.0,
        ),
        ("keyd_fallbacks_total{namespace=\"either\",preferred=\"hsm\",got=\"hsm-wrapped\"}", 1.0),
        ("keyd_denied_total{operation=\"delete\"}", 1.0),
        ("keyd_device_state{device=\"token\",state=\"ok\"}", 1.0),
        ("keyd_device_state{device=\"token\",state=\"locked out\"}", 0.0),
        ("keyd_token_worker_starts_total", 2.0),
    ] {
        assert_eq!(sample(&text, series), Some(value), "{series} in\n{text}");
    }
    assert!(sample(&text, "keyd_start_time_seconds").unwrap() > 1.7e9, "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");

    let json = keyd.json(&["metrics"]).await.unwrap();
    let samples = json["samples"].as_array().unwrap();
    assert!(samples.iter().any(|s| s["name"] == "keyd_denied_total" && s["value"] == 1.0), "{json}");
    let denied = keyd_as_another_user(dir.path(), "keyd.sock", &["--json", "metrics"]).await.unwrap();
    assert!(
        String::from_utf8_lossy(&denied.stderr).contains("DENIED"),
        "it is for those who may see the status"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_profile_let_pass_and_what_it_and_the_limits_refused_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[limits]\nkeys = 1\nmessage_bytes = 4000\nconnections_per_user = 2\n".to_owned()
        + &namespaces(&[("site", &[Protection::Software])])
        + "[[issuance]]\nkeys = [\"site/ca\"]\ntrust_domain = \"td\"\n[issuance.leaf]\nlifetime = \"1day\"\n\
           ids = [\"spiffe://td/*\"]\nalgorithms = [\"ec-p256\"]\n";
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let (client, ca) = (keyd.client(), "site/ca".parse().unwrap());
    let issuer = client.create_key(&ca, Algorithm::MlDsa44, None).await.unwrap().public_key;
    let full = client.create_key(&"site/b".parse().unwrap(), Algorithm::MlDsa44, None).await.unwrap_err();
    assert_eq!(full.reason, Reason::LimitExceeded);

    let leaf_key = Local::generate(Algorithm::EcP256).unwrap();
    let now = SystemTime::now();
    let leaf = Forge::leaf(&issuer, leaf_key.0.public_key(), "spiffe://td/web", now);
    let year = Forge { not_after: now + Duration::from_secs(365 * 24 * 3600), ..leaf.clone() };
    for message in [leaf.tbs(), leaf.tbs(), year.tbs(), b"pay 100".to_vec(), vec![7; 4001]] {
        let _ = client.sign(&ca, SignInput::Message(&message)).await;
    }
    // The client has one, and one more is all that there is room for.
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(UnixStream::connect(keyd.socket()).await.unwrap());
    }
    assert_eq!(held[1].read(&mut [0]).await.unwrap(), 0, "closed unread");
    let text = client.metrics().await.unwrap();
    for (series, value) in [
        ("keyd_certificates_total{namespace=\"site\",kind=\"leaf\"}", 2.0),
        ("keyd_certificates_refused_total{namespace=\"site\",rule=\"leaf.lifetime\"}", 1.0),
        ("keyd_certificates_refused_total{namespace=\"site\",rule=\"form\"}", 2.0),
        ("keyd_limited_total{limit=\"keys\"}", 1.0),
        ("keyd_limited_total{limit=\"connections_per_user\"}", 1.0),
        ("keyd_limited_total{limit=\"message_bytes\"}", 0.0),
        ("keyd_limited_total{limit=\"calls_per_user\"}", 0.0),
    ] {
        assert_eq!(sample(&text, series), Some(value), "{series} in\n{text}");
    }
}
