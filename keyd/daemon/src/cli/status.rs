//! `keyd status`.

use keyd_api::Client;
use keyd_api::v1::StatusResponse;
use keyd_core::Failure;
use keyd_unix::Output;
use serde_json::{Value, json};

/// Asks keyd how it is.
pub async fn run(client: &Client, output: &Output) -> Result<(), Failure> {
    let status = client.status().await?;
    output.show(&describe(&status), |_| human(&status))
}

fn describe(status: &StatusResponse) -> Value {
    let devices =
        status.devices.iter().map(|d| json!({ "device": d.device, "state": d.state, "detail": d.detail }));
    let namespaces = status
        .namespaces
        .iter()
        .map(|n| json!({ "namespace": n.namespace, "protections": n.protections, "keys": n.keys }));
    let ca_keys = status.ca_keys.iter().map(
        |ca| json!({ "key": ca.key, "algorithm": ca.algorithm, "guarded": ca.guarded, "detail": ca.detail }),
    );
    json!({
        "version": status.version,
        "started_at": status.started_at,
        "memory_locked": status.memory_locked,
        "profile": Some(&status.profile).filter(|profile| !profile.is_empty()),
        "keys_outside_profile": status.keys_outside_profile,
        "devices": devices.collect::<Vec<_>>(),
        "namespaces": namespaces.collect::<Vec<_>>(),
        "ca_keys": ca_keys.collect::<Vec<_>>(),
    })
}

fn human(status: &StatusResponse) -> String {
    let mut text = format!("keyd {} serves\n", status.version);
    for device in &status.devices {
        // What is wrong is a sentence of its own, which names the device; what it can do is not.
        match device.state.as_str() {
            "ok" => text.push_str(&format!("{}: ok; {}\n", device.device, device.detail)),
            state => text.push_str(&format!("{}: {}\n", state.to_uppercase(), device.detail)),
        }
    }
    for namespace in &status.namespaces {
        let keys = if namespace.keys == 1 { "key" } else { "keys" };
        let accepted = namespace.protections.join(", ");
        text.push_str(&format!(
            "namespace {}: {} {keys}; accepts {accepted}\n",
            namespace.namespace, namespace.keys
        ));
        if namespace.protections.iter().any(|p| p == "software") {
            text.push_str("  accepts software keys, which lie on disk in clear: for development alone\n");
        }
    }
    if !status.profile.is_empty() {
        text.push_str(&format!(
            "profile {}: keys of other algorithms are neither made nor used\n",
            status.profile
        ));
        if status.keys_outside_profile > 0 {
            text.push_str(&format!(
                "  it refuses {} of the keys above; keyd doctor names them\n",
                status.keys_outside_profile
            ));
        }
    }
    for ca in &status.ca_keys {
        let guard =
            if ca.guarded { "signs what its issuance profile allows, and nothing else" } else { &ca.detail };
        text.push_str(&format!("CA key {} ({}): {guard}\n", ca.key, ca.algorithm));
    }
    if !status.memory_locked {
        text.push_str(
            "memory is not locked: secrets can be swapped out. Give the service LimitMEMLOCK=infinity.\n",
        );
    }
    text
}
