//! A profile's rules, applied to a certificate that was read.

use std::time::{Duration, SystemTime};

use const_oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use der::asn1::ObjectIdentifier;
use humantime_serde::re::humantime::format_duration;
use keyd_core::{Algorithm, PublicKey};
use x509_cert::ext::pkix::KeyUsages;

use super::reading::{Certificate, identifies};
use super::{CaRule, DnsRule, Issued, OwnRule, Profile, Refused, malformed, refused, self_test};
use crate::SpiffeId;

/// How far in the future a certificate may begin, against clocks that disagree.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The first rule that is broken, or what is to be recorded.
pub fn apply(
    profile: &Profile,
    own_key: &PublicKey,
    certificate: &Certificate,
    now: SystemTime,
) -> Result<Issued, Refused> {
    if let Some(identifier) = &certificate.extensions.authority
        && !identifies(identifier, own_key)
    {
        return Err(malformed("its authority key identifier is not of the key that is to sign it"));
    }
    if let Some(identifier) = &certificate.extensions.subject
        && !identifies(identifier, &certificate.key)
    {
        return Err(malformed("its subject key identifier is not of the key that it certifies"));
    }
    let spiffe_id = spiffe_id(profile, certificate)?;
    if certificate.not_before > certificate.not_after {
        return Err(malformed("its validity ends before it begins"));
    }
    if certificate.not_before > now + CLOCK_SKEW {
        return Err(refused("not_before", "its validity begins in the future"));
    }
    let ca = certificate.extensions.constraints.as_ref().is_some_and(|(constraints, _)| constraints.ca);
    match (ca, certificate.key == *own_key) {
        (true, true) => own(profile.own.as_ref(), certificate, &spiffe_id, now)?,
        (true, false) => other_ca(profile.ca.as_ref(), certificate, &spiffe_id, now)?,
        (false, true) => return Err(refused("leaf", "it would make the CA key a leaf's")),
        (false, false) => leaf(profile, certificate, &spiffe_id, now)?,
    }
    Ok(Issued {
        serial: certificate.serial.clone(),
        spiffe_id,
        ca,
        spki_sha256: certificate.key.fingerprint(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
    })
}

/// The only URI, which must be a SPIFFE ID of the trust domain (X509-SVID §2).
fn spiffe_id(profile: &Profile, certificate: &Certificate) -> Result<SpiffeId, Refused> {
    let [uri] = certificate.extensions.names.uris.as_slice() else {
        let count = certificate.extensions.names.uris.len();
        return Err(malformed(format!("it has {count} URI names; a certificate of SPIFFE has one")));
    };
    let id: SpiffeId = uri.parse().map_err(|e: crate::X509Error| malformed(e.to_string()))?;
    if *id.trust_domain() != profile.trust_domain {
        let why = format!("it names trust domain {}, not {}", id.trust_domain(), profile.trust_domain);
        return Err(refused("trust_domain", why));
    }
    Ok(id)
}

fn own(rule: Option<&OwnRule>, c: &Certificate, id: &SpiffeId, now: SystemTime) -> Result<(), Refused> {
    let rule = rule.ok_or_else(|| refused("own", "the key may not sign a certificate for itself"))?;
    if c.subject != c.issuer {
        return Err(refused("own", "it is for the key that signs it, yet its subject is not its issuer"));
    }
    as_ca(c, id)?;
    lifetime("own.lifetime", c, rule.lifetime, now)
}

fn other_ca(rule: Option<&CaRule>, c: &Certificate, id: &SpiffeId, now: SystemTime) -> Result<(), Refused> {
    let rule = rule.ok_or_else(|| refused("ca", "the key may not sign certificates of other CAs"))?;
    if !c.subject.differs(&c.issuer) {
        // RFC 5280 §6.1: it would not count in a path length.
        return Err(refused(
            "ca",
            "verifiers may take its subject for its issuer, but its key is not the issuer's",
        ));
    }
    as_ca(c, id)?;
    let length =
        c.extensions.constraints.as_ref().and_then(|(constraints, _)| constraints.path_len_constraint);
    match (rule.path_length, length) {
        (Some(most), Some(length)) if length > most => {
            let why = format!("it has path length {length}, more than {most}");
            return Err(refused("ca.path_length", why));
        }
        (Some(most), None) => {
            let why = format!("it has no path length; {most} is the most that it may have");
            return Err(refused("ca.path_length", why));
        }
        _ => {}
    }
    algorithm("ca.algorithms", c, &rule.algorithms)?;
    lifetime("ca.lifetime", c, rule.lifetime, now)
}

fn leaf(profile: &Profile, c: &Certificate, id: &SpiffeId, now: SystemTime) -> Result<(), Refused> {
    let Some(rule) = &profile.leaf else {
        return Err(refused("leaf", "the key may not sign certificates of leaves"));
    };
    as_leaf(c, &rule.dns_names)?;
    if self_test::is(c, id) {
        return self_test::check(profile, c, now);
    }
    if c.extensions.usage.is_none() {
        return Err(malformed("it has no key usage"));
    }
    if id.path().is_empty() || !rule.ids.allow(id) {
        return Err(refused("leaf.ids", format!("{id} is not among the ids that leaves may have")));
    }
    algorithm("leaf.algorithms", c, &rule.algorithms)?;
    lifetime("leaf.lifetime", c, rule.lifetime, now)
}

/// What makes a certificate a CA's and nothing else (X509-SVID §3, §4; RFC 5280 §4.2.1.3, §4.2.1.9).
fn as_ca(c: &Certificate, id: &SpiffeId) -> Result<(), Refused> {
    if !id.path().is_empty() || !c.extensions.names.dns.is_empty() {
        return Err(malformed("a CA names the trust domain and nothing else"));
    }
    if c.extensions.constraints.as_ref().is_none_or(|(_, critical)| !critical) {
        return Err(malformed("a CA's basic constraints must be critical"));
    }
    let may = KeyUsages::KeyCertSign | KeyUsages::CRLSign;
    match &c.extensions.usage {
        Some((usage, true)) if usage.key_cert_sign() && (usage.0 - may).is_empty() => {}
        _ => {
            return Err(malformed("a CA's key usage must be critical, and keyCertSign with at most cRLSign"));
        }
    }
    if c.extensions.purposes.is_some() {
        return Err(malformed("a CA has no extended key usage"));
    }
    if c.subject.is_empty() {
        return Err(malformed("a CA must have a subject"));
    }
    Ok(())
}

/// What keeps a certificate from being more than a leaf's (X509-SVID §4.3, §4.4).
fn as_leaf(c: &Certificate, dns_names: &[DnsRule]) -> Result<(), Refused> {
    let constraints = c.extensions.constraints.as_ref();
    if constraints.is_some_and(|(constraints, _)| constraints.path_len_constraint.is_some()) {
        return Err(malformed("it is no CA, yet has a path length"));
    }
    if let Some((usage, critical)) = &c.extensions.usage {
        let may = KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment | KeyUsages::KeyAgreement;
        if !critical || !usage.digital_signature() || !(usage.0 - may).is_empty() {
            return Err(malformed(
                "a leaf's key usage must be critical, and digitalSignature with at most keyEncipherment and keyAgreement",
            ));
        }
    }
    let allowed: [ObjectIdentifier; 2] = [ID_KP_SERVER_AUTH, ID_KP_CLIENT_AUTH];
    if c.extensions.purposes.as_ref().is_some_and(|p| p.0.iter().any(|oid| !allowed.contains(oid))) {
        return Err(malformed("a leaf's extended key usage may be serverAuth and clientAuth alone"));
    }
    if c.subject.is_empty() && !c.extensions.names.critical {
        // RFC 5280 §4.2.1.6
        return Err(malformed("it has no subject, so its alternative names must be critical"));
    }
    let dns = &c.extensions.names.dns;
    if let Some(other) = dns.iter().find(|name| !dns_names.iter().any(|rule| rule.allows(name))) {
        return Err(refused(
            "leaf.dns_names",
            format!("{other:?} is not among the DNS names that leaves may have"),
        ));
    }
    // Verifiers of old take a common name for a DNS name.
    if c.subject.common_names().any(|name| !dns.iter().any(|dns| dns == name)) {
        return Err(refused("leaf.dns_names", "its common name is none of its DNS names"));
    }
    Ok(())
}

fn algorithm(rule: &'static str, c: &Certificate, allowed: &[Algorithm]) -> Result<(), Refused> {
    let algorithm = c.key.algorithm();
    if allowed.contains(&algorithm) {
        return Ok(());
    }
    Err(refused(rule, format!("its key is {algorithm}")))
}

fn lifetime(rule: &'static str, c: &Certificate, longest: Duration, now: SystemTime) -> Result<(), Refused> {
    match too_long(c, longest, now) {
        None => Ok(()),
        Some(left) => {
            let most = format_duration(longest);
            Err(refused(rule, format!("it is valid for {}, the most is {most}", format_duration(left))))
        }
    }
}

/// How long it is valid from now on, rounded up to whole seconds, where that is longer than `longest`.
pub fn too_long(c: &Certificate, longest: Duration, now: SystemTime) -> Option<Duration> {
    let left = c.not_after.duration_since(now).unwrap_or_default();
    let part = u64::from(left.subsec_nanos() > 0);
    (left > longest).then(|| Duration::from_secs(left.as_secs().saturating_add(part)))
}
