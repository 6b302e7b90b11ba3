//! CA keys with an issuance profile: they sign what it allows, once it is in the audit log.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use keyd_audit::{Draft, Event, Origin, Text};
use keyd_core::{Algorithm, Failure, KeyId, Reason, SignInput};
use keyd_x509::issuance::{Allowed, Issued, Profile, Refused};

use super::{Key, KeyRecord, Keyring};
use crate::config::Config;

/// How SPIRE's KeyManager names the server's X.509 CA keys.
const SPIRE_CA: &str = "x509-CA-";
/// What `keyd ca init` names a root unless told otherwise.
pub const ROOT: &str = "spire-root/root";

/// A key that signs certificates, and whether keyd sees what it signs.
pub struct CaKey {
    /// The key.
    pub key: Arc<Key>,
    /// Why no profile guards it.
    pub unguarded: Option<&'static str>,
}

impl Keyring {
    /// The keys under a profile, and those that are named as SPIRE names its CA keys or `keyd ca init` its root: nothing but
    /// the name tells what a key is for.
    pub fn ca_keys(&self) -> Vec<CaKey> {
        let judged = self.all().into_iter().filter_map(|key| {
            let id = &key.record.id;
            let unguarded = match self.profile(id) {
                Some(_) => None,
                None if !is_named_as_ca(id) => return None,
                None if !key.record.algorithm.is_ml_dsa() => Some(
                    "it signs digests, so keyd cannot see what it signs; no issuance profile can guard it",
                ),
                None => {
                    Some("it signs anything that its users ask for; an [[issuance]] table would guard it")
                }
            };
            Some(CaKey { key, unguarded })
        });
        judged.collect()
    }

    /// Refuses a key under a profile that could not be guarded.
    ///
    /// # Errors
    /// [`Reason::BadRequest`].
    pub(super) fn check_guard(&self, id: &KeyId, algorithm: Algorithm) -> Result<(), Failure> {
        if self.profile(id).is_none() || algorithm.is_ml_dsa() {
            return Ok(());
        }
        Err(Failure::new(Reason::BadRequest, format!("{} (asked for: {algorithm})", unguardable(id))))
    }

    /// Holds another configuration against the keys that there are, as [`check_records`] does.
    ///
    /// # Errors
    /// [`Reason::BadConfig`] naming the key.
    pub fn check_guards(&self, config: &Config) -> Result<(), Failure> {
        let keys = self.all();
        check_records(keys.iter().map(|key| &key.record), |id| config.issuance_profile(id).is_some())
    }

    /// What a key may sign, where that is not everything.
    pub(super) fn profile(&self, id: &KeyId) -> Option<Arc<Profile>> {
        self.shared.rules.now().config.issuance_profile(id).cloned()
    }

    /// Signs what the profile allows. The record of a certificate is durable before its signature leaves; both are made at
    /// the same time.
    pub(super) async fn sign_guarded(
        &self,
        origin: Origin,
        key: &Key,
        profile: &Profile,
        input: SignInput<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let judged = match input {
            SignInput::Message(message) if key.record.algorithm.is_ml_dsa() => {
                profile.judge(&key.record.public_key, message, SystemTime::now())
            }
            _ => Err(Refused { rule: "form", why: unguardable(&key.record.id) }),
        };
        let namespace = &key.record.id.namespace;
        match judged {
            Ok(Allowed::Request) => self.sign_with(key, input).await,
            Ok(Allowed::Certificate(issued)) => {
                let draft = Draft::done(origin, recorded(&key.record, &issued));
                let (recorded, signed) =
                    tokio::join!(self.shared.journal.append(vec![draft]), self.sign_with(key, input));
                let signed = recorded.and(signed)?;
                self.metrics().issued(namespace, issued.ca);
                Ok(signed)
            }
            Err(refused) => {
                let failure = Failure::new(
                    Reason::IssuanceRefused,
                    format!("the issuance profile of {} does not allow this: {refused}", key.record.id),
                );
                tracing::warn!(key = %key.record.id, uid = origin.uid, pid = origin.pid, %refused, "not signed");
                let event = Event::IssuanceRefused {
                    key: key.record.id.clone(),
                    rule: Text::cut(refused.rule),
                    count: 1,
                };
                self.metrics().not_issued(namespace, refused.rule);
                self.shared.journal.repeated(Draft::failed(origin, event, failure.reason)).await;
                Err(failure)
            }
        }
    }
}

/// Refuses a configuration that puts keys under a profile which sign digests.
///
/// # Errors
/// [`Reason::BadConfig`] naming the key.
pub(super) fn check_records<'a>(
    mut records: impl Iterator<Item = &'a KeyRecord>,
    profile: impl Fn(&KeyId) -> bool,
) -> Result<(), Failure> {
    let Some(record) = records.find(|r| !r.algorithm.is_ml_dsa() && profile(&r.id)) else { return Ok(()) };
    let why = format!("{} (it is {})", unguardable(&record.id), record.algorithm);
    Err(Failure::new(Reason::BadConfig, why))
}

/// In whatever namespace.
fn is_named_as_ca(id: &KeyId) -> bool {
    let name = id.name.as_str();
    name.starts_with(SPIRE_CA) || ROOT.split_once('/').is_some_and(|(_, root)| name == root)
}

fn unguardable(id: &KeyId) -> String {
    format!(
        "an [[issuance]] table names {id}, and only ML-DSA keys can be held to one: others sign digests. Make it an ML-DSA \
         key (for SPIRE's CA: x509_ca_algorithm), or take it off the table"
    )
}

fn recorded(key: &KeyRecord, issued: &Issued) -> Event {
    let not_after = issued.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Event::CertificateIssued {
        key: key.id.clone(),
        version: key.version,
        serial: Text::cut(&hex::encode(&issued.serial)),
        spiffe_id: Text::cut(issued.spiffe_id.as_str()),
        ca: issued.ca,
        spki_sha256: issued.spki_sha256,
        not_after: i64::try_from(not_after).unwrap_or(i64::MAX),
    }
}
