//! `keyd metrics` says what happened.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use keyd_core::{Algorithm, Protection, SignInput};
use nix::sys::signal::{Signal, kill};
use peers::token::Token;
use system::keyd::{Keyd, namespaces, token_table, write_private};
use system::other_user::keyd_as_another_user;

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
    let pin = dir.path().join("pin");
    write_private(&pin, token.user_pin).unwrap();
    let (either, soft) = ([Protection::Hsm, Protection::HsmWrapped], [Protection::Software]);
    let tables: &[(&str, &[Protection])] = &[("either", &either), ("soft", &soft)];
    let keyd = Keyd::start(dir.path(), &(token_table(&token, &pin) + &namespaces(tables))).await.unwrap();
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
