//! What does not fit together on this node.

use std::collections::BTreeMap;
use std::path::Path;

use keyd_api::v1::Finding;
use keyd_core::{Health, HealthState, KeyId, Protection, Sealer, Vault};
use keyd_tpm::Tpm;
use keyd_unix::off_worker;

use crate::checkpoints::Standing;
use crate::clock;
use crate::config::OWN_NAMESPACE;
use crate::keyring::{Keyring, is_ours};
use crate::pin;
use crate::places::Places;

/// Most keys that one finding names.
const NAMED: usize = 10;

/// How far a clock may be set back without a word, in seconds.
const CLOCK_SLACK: i64 = 300;

/// Looks at the clock, at every device, and at every key that should be in the token.
pub async fn examine(
    keyring: &Keyring,
    places: &Places,
    tpm: Option<&Tpm>,
    sealed_pin: Option<&Path>,
) -> Vec<Finding> {
    let mut findings = Vec::from_iter(clock(keyring, clock::now()));
    if let Some(tpm) = tpm {
        match unwell(tpm.health().await) {
            Some(finding) => findings.push(finding),
            None => {
                let tpm = tpm.in_background();
                findings.extend(seals(keyring, &tpm).await);
                if let Some(path) = sealed_pin {
                    findings.extend(pin_seal(path, &tpm).await);
                }
            }
        }
    }
    if let Err(failure) = keyring.check_records().await {
        findings.push(Finding {
            subject: "the store".to_owned(),
            problem: "whether it is an older copy is not known, and no key is used until then".to_owned(),
            next_step: failure.message,
        });
    }
    if let Some(vault) = &places.vault {
        match unwell(vault.health().await) {
            Some(finding) => findings.push(finding),
            None => findings.extend(token_objects(keyring, vault.as_ref()).await),
        }
    }
    findings.extend(outside_profile(keyring));
    findings
}

/// A clock that was set back: it stands before the last key was made. `now` is in seconds since 1970-01-01T00:00:00Z.
fn clock(keyring: &Keyring, now: i64) -> Option<Finding> {
    let keys = keyring.all();
    let users = keys.iter().filter(|key| key.record.id.namespace.as_str() != OWN_NAMESPACE);
    let last = users.max_by_key(|key| key.record.created_at)?;
    let behind = last.record.created_at.saturating_sub(now);
    (behind > CLOCK_SLACK).then(|| Finding {
        subject: "the clock".to_owned(),
        problem: format!("it stands {behind} s before key {} was made", last.record.id),
        next_step:
            "set it: certificates and records that are made meanwhile bear the wrong time. Keys go on signing"
                .to_owned(),
    })
}

/// Keys that were made before the profile was set.
fn outside_profile(keyring: &Keyring) -> Option<Finding> {
    let keys = keyring.outside_profile();
    let named: Vec<_> =
        keys.iter().take(NAMED).map(|k| format!("{} ({})", k.record.id, k.record.algorithm)).collect();
    let more = match keys.len().saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!keys.is_empty()).then(|| Finding {
        subject: "the profile of keyd.toml".to_owned(),
        problem: format!("it refuses to use {}{more}", named.join(", ")),
        next_step: "rotate them with --algorithm to one that it allows, or delete them".to_owned(),
    })
}

/// An audit log that takes no records, or that nobody signs.
pub fn audit_log(standing: &Standing) -> Vec<Finding> {
    let subject = || "the audit log".to_owned();
    let mut findings = Vec::new();
    if let Some(trouble) = &standing.state.trouble {
        findings.push(Finding {
            subject: subject(),
            problem: "it takes no records, so keys cannot be made, rotated or deleted".to_owned(),
            next_step: trouble.clone(),
        });
    }
    if let Some(failure) = &standing.unsigned {
        findings.push(Finding {
            subject: subject(),
            problem: format!("it is not signed beyond record {}", standing.state.signed_through),
            next_step: failure.message.clone(),
        });
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

/// Seals that do not open now, though their keys may still be in memory; and seals that are not as a new one would be.
async fn seals(keyring: &Keyring, tpm: &Tpm) -> Vec<Finding> {
    let keys = keyring.sealed_by_tpm();
    let blobs = keys.iter().map(|key| key.record.material.expose().to_vec()).collect();
    let standings = match tpm.examine(blobs, &[]).await {
        Ok(standings) => standings,
        Err(failure) => {
            return vec![Finding {
                subject: "the TPM's seals".to_owned(),
                problem: "they cannot be looked at".to_owned(),
                next_step: failure.message,
            }];
        }
    };
    // What is said of many keys is said once.
    let mut said: BTreeMap<(&str, String), Vec<&KeyId>> = BTreeMap::new();
    for (key, standing) in keys.iter().zip(standings) {
        let what = match standing.obstacle {
            Some(failure) => (
                "its seal does not open as things are; a key in memory signs until keyd ends",
                failure.message,
            ),
            None if !standing.current => {
                ("it opens, and is sealed otherwise than a new key would be", "Run `keyd reseal`.".to_owned())
            }
            None => continue,
        };
        said.entry(what).or_default().push(&key.record.id);
    }
    let finding = |((problem, next_step), ids): ((&str, String), Vec<&KeyId>)| Finding {
        subject: match ids.as_slice() {
            [one] => format!("key {one}"),
            [first, rest @ ..] => format!("key {first}, and {} more", rest.len()),
            [] => String::new(),
        },
        problem: problem.to_owned(),
        next_step,
    };
    said.into_iter().map(finding).collect()
}

/// The token's PIN, which keyd needs at its next start.
async fn pin_seal(path: &Path, tpm: &Tpm) -> Option<Finding> {
    let file = path.to_owned();
    let looked_at = match off_worker(move || pin::sealed(&file)).await {
        Ok(blob) => tpm.examine(vec![blob], &[]).await,
        Err(failure) => Err(failure),
    };
    let failure = match looked_at {
        Ok(standings) => standings.into_iter().find_map(|standing| standing.obstacle)?,
        Err(failure) => failure,
    };
    Some(Finding {
        subject: format!("sealed PIN {}", path.display()),
        problem: "it does not open as things are, and the token cannot be used once keyd has started anew"
            .to_owned(),
        next_step: format!("Seal it anew with `keyd token seal-pin`. {}", failure.message),
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
        if key.record.protection == Protection::Hsm && objects.remove(key.record.material.expose()).is_none()
        {
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
    findings.extend(objects.into_iter().map(|(id, label)| {
        let object = hex::encode(&id);
        Finding {
            subject: format!("token object {object} ({label})"),
            problem: "no key of this keyd uses it".to_owned(),
            next_step: match is_ours(&id) {
                true => format!(
                    "it does no harm; where no other keyd shares the token: keyd token remove-orphan {object}"
                ),
                false => {
                    "it does no harm, and keyd did not make it: the token's own tools remove it".to_owned()
                }
            },
        }
    }));
    findings
}
