//! What does not fit together on this node.

use std::collections::BTreeMap;

use keyd_api::v1::Finding;
use keyd_core::{Health, HealthState, Protection, Vault};

use crate::keyring::Keyring;
use crate::places::Places;

/// Looks at every device, and at every key that should be in the token.
pub async fn examine(keyring: &Keyring, places: &Places) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(tpm) = &places.tpm {
        findings.extend(unwell(tpm.health().await));
    }
    if let Some(vault) = &places.vault {
        match unwell(vault.health().await) {
            Some(finding) => findings.push(finding),
            None => findings.extend(token_objects(keyring, vault.as_ref()).await),
        }
    }
    findings
}

fn unwell(health: Health) -> Option<Finding> {
    (health.state != HealthState::Ok).then(|| Finding {
        subject: health.device,
        problem: format!("it is {}", health.state.name()),
        next_step: health.detail,
    })
}

/// A crash between token and store, or a restored store, leaves objects without a key or keys without an object.
async fn token_objects(keyring: &Keyring, vault: &dyn Vault) -> Vec<Finding> {
    let mut objects: BTreeMap<Vec<u8>, String> = match vault.private_keys().await {
        Ok(held) => held.into_iter().map(|key| (key.handle, key.label)).collect(),
        Err(failure) => {
            return vec![Finding {
                subject: "the token's objects".to_owned(),
                problem: "they cannot be listed".to_owned(),
                next_step: failure.message,
            }];
        }
    };
    let mut findings = Vec::new();
    for key in keyring.all() {
        if key.record.protection == Protection::Hsm && objects.remove(&key.record.material).is_none() {
            findings.push(Finding {
                subject: format!("key {}", key.record.id),
                problem: "its private key is not in the token".to_owned(),
                next_step: format!(
                    "put back the token that made it, or give it up: keyd key delete {}",
                    key.record.id
                ),
            });
        }
    }
    findings.extend(objects.into_iter().map(|(id, label)| Finding {
        subject: format!("token object {} ({label})", hex::encode(&id)),
        problem: "no key of this keyd uses it".to_owned(),
        next_step: format!(
            "it does no harm; where no other keyd shares the token: keyd token remove-orphan {}",
            hex::encode(&id)
        ),
    }));
    findings
}
