//! What a profile allows, and the many things that it does not.

use std::time::{Duration, SystemTime};

use const_oid::db::{rfc5280, rfc5912};
use der::Encode;
use der::asn1::{Ia5String, OctetString};
use forge::{Forge, authority_id, extension, names, raw, subject_id, tlv, uris};
use keyd_core::{Algorithm, PublicKey};
use keyd_x509::issuance::{Allowed, CaRule, Issued, LeafRule, OwnRule, Profile, Refused};
use keyd_x509::{AllowedId, request};
use proptest::prelude::*;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
};

use super::second_opinion;
use super::{Capture, Key};

const HOUR: Duration = Duration::from_secs(3600);
const ID: &str = "spiffe://example.org/web";

fn profile() -> Profile {
    let leaves = ["spiffe://example.org/*"].map(|id| id.parse::<AllowedId>().unwrap());
    let algorithms = vec![Algorithm::EcP256, Algorithm::MlDsa44];
    Profile {
        trust_domain: "example.org".parse().unwrap(),
        own: Some(OwnRule { lifetime: 2 * HOUR }),
        ca: Some(CaRule { lifetime: 2 * HOUR, path_length: Some(1), algorithms: algorithms.clone() }),
        leaf: Some(LeafRule {
            lifetime: 2 * HOUR,
            ids: leaves.into_iter().collect(),
            algorithms,
            dns_names: ["web.example.org", "*.svc.example.org"].map(|name| name.parse().unwrap()).to_vec(),
        }),
        self_test_lifetime: 5 * HOUR,
    }
}

/// A key that verifies nothing, and is read as any other.
fn key(algorithm: Algorithm, fill: u8) -> PublicKey {
    let mut raw = vec![fill; algorithm.public_len()];
    if !algorithm.is_ml_dsa() {
        raw[0] = 4;
    }
    PublicKey::from_raw(algorithm, &raw).unwrap()
}

fn ca_key() -> PublicKey {
    key(Algorithm::MlDsa44, 1)
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn leaf() -> Forge {
    Forge::leaf(&ca_key(), &key(Algorithm::EcP256, 2), ID, now())
}

fn ca(path_length: Option<u8>) -> Forge {
    Forge::ca(&ca_key(), &key(Algorithm::MlDsa44, 2), "spiffe://example.org", path_length, now())
}

fn judge(tbs: &[u8]) -> Result<Issued, Refused> {
    match profile().judge(&ca_key(), tbs, now())? {
        Allowed::Certificate(issued) => {
            second_opinion::agrees(&ca_key(), tbs, &issued);
            Ok(issued)
        }
        Allowed::Request => panic!("taken for a request"),
    }
}

#[track_caller]
fn refused(what: &str, rule: &str, tbs: &[u8]) {
    let refusal = judge(tbs).expect_err(what);
    assert_eq!(refusal.rule, rule, "{what}: {refusal}");
}

#[test]
fn what_the_profile_describes_is_allowed_and_told() {
    let issued = judge(&leaf().tbs()).unwrap();
    assert_eq!((issued.spiffe_id.as_str(), issued.ca), (ID, false));
    assert_eq!(issued.spki_sha256, key(Algorithm::EcP256, 2).fingerprint());
    assert_eq!((issued.serial, issued.not_after), (vec![0x42; 16], now() + HOUR));
    for length in [0, 1] {
        assert!(judge(&ca(Some(length)).tbs()).unwrap().ca);
    }
    let root = Forge { subject: "CN=CA,O=SPIFFE".to_owned(), ..ca(None).of(&ca_key()) };
    assert!(judge(&root.tbs()).unwrap().ca, "its own certificate");
}

#[tokio::test]
async fn its_own_request_is_allowed_and_nobody_elses() {
    let (own, other) = (Key::new(Algorithm::MlDsa44), Key::new(Algorithm::MlDsa44));
    let td: keyd_x509::SpiffeId = "spiffe://example.org".parse().unwrap();
    let message = |id: Option<keyd_x509::SpiffeId>| async move {
        let capture = Capture::of(Key::new(Algorithm::MlDsa44));
        let _ = request(&capture, id.as_ref()).await.unwrap();
        (capture.key.0.public_key().clone(), capture.taken())
    };
    for id in [None, Some(td)] {
        let (key, info) = message(id).await;
        assert_eq!(profile().judge(&key, &info, now()), Ok(Allowed::Request));
        assert_eq!(profile().judge(other.0.public_key(), &info, now()).unwrap_err().rule, "request");
        let longer = [&info[..], &[0]].concat();
        assert!(profile().judge(&key, &longer, now()).is_err(), "trailing bytes");
    }
    let (key, info) = message(Some("spiffe://other.example".parse().unwrap())).await;
    assert_eq!(profile().judge(&key, &info, now()).unwrap_err().rule, "trust_domain");
    let _ = own;
}

#[test]
fn what_is_no_certificate_is_refused() {
    for (what, bytes) in
        [("nothing", &b""[..]), ("plain text", b"pay 100 to mallory"), ("a sequence", &[0x30, 0])]
    {
        refused(what, "form", bytes);
    }
    refused("20 kB", "form", &vec![0x30; 20_000]);
}

#[test]
fn each_rule_of_the_profile_holds() {
    let later = |hours: u32| now() + hours * HOUR;
    let other_td = |uri: &str| Forge::leaf(&ca_key(), &key(Algorithm::EcP256, 2), uri, now());
    refused("another trust domain", "trust_domain", &other_td("spiffe://other.example/web").tbs());
    refused("the trust domain itself", "leaf.ids", &other_td("spiffe://example.org").tbs());
    refused("a long life", "leaf.lifetime", &Forge { not_after: later(365 * 24), ..leaf() }.tbs());
    refused(
        "a second too long",
        "leaf.lifetime",
        &Forge { not_after: later(2) + Duration::from_secs(1), ..leaf() }.tbs(),
    );
    refused("the future", "not_before", &Forge { not_before: now() + HOUR / 2, ..leaf() }.tbs());
    refused("reversed", "form", &Forge { not_before: now(), not_after: now() - HOUR, ..leaf() }.tbs());
    let p384 = key(Algorithm::EcP384, 2);
    refused("another algorithm", "leaf.algorithms", &leaf().of(&p384).tbs());
    refused("the CA's own key", "leaf", &leaf().of(&ca_key()).tbs());

    refused("a longer path", "ca.path_length", &ca(Some(2)).tbs());
    refused("any path", "ca.path_length", &ca(None).tbs());
    refused("a CA's long life", "ca.lifetime", &Forge { not_after: later(3), ..ca(Some(0)) }.tbs());
    refused("a CA's algorithm", "ca.algorithms", &ca(Some(0)).of(&p384).tbs());
    refused("a CA with a path", "form", &ca(Some(0)).with(extension(&uris(&[ID]), false)).tbs());
    let own = ca(None).of(&ca_key());
    refused("its own, under another name", "own", &own.tbs());
    let folded = Forge { subject: "CN=ca,O=SPIFFE".to_owned(), ..own.clone() };
    refused("its own, under a name that some take for the same", "own", &folded.tbs());
    let own = Forge { subject: "CN=CA,O=SPIFFE".to_owned(), not_after: later(3), ..own };
    refused("its own, for long", "own.lifetime", &own.tbs());

    let nothing = Profile { own: None, ca: None, leaf: None, ..profile() };
    for (tbs, rule) in [(leaf().tbs(), "leaf"), (ca(Some(0)).tbs(), "ca")] {
        assert_eq!(nothing.judge(&ca_key(), &tbs, now()).unwrap_err().rule, rule);
    }
    assert!(nothing.check().is_err());
}

#[test]
fn spires_self_test_is_allowed_as_spire_writes_it_and_no_longer_than_a_ca_lives() {
    let test = || Forge::self_test(&ca_key(), "spiffe://example.org", now());
    let until = |end: SystemTime| Forge { not_after: end, ..test() };
    assert_eq!(judge(&until(now() + 5 * HOUR).tbs()).unwrap().serial, [1], "a CA's life");
    refused("a second longer", "self_test", &until(now() + 5 * HOUR + Duration::from_secs(1)).tbs());
    // 9999-12-31T23:59:59Z
    let forever = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    refused("for ever", "self_test", &until(forever).tbs());

    // Whatever is not that certificate is a leaf as any other, and lives no longer.
    let named = |subject: &str, forge: Forge| Forge { subject: subject.to_owned(), ..forge };
    let with_usage = || {
        let usage = KeyUsage(KeyUsages::DigitalSignature.into());
        until(now() + 4 * HOUR).with(extension(&usage, true))
    };
    refused("with a key usage", "leaf.lifetime", &with_usage().tbs());
    refused("with another serial number", "leaf.lifetime", &Forge { serial: vec![2], ..with_usage() }.tbs());
    refused("with a subject", "form", &named("O=SPIRE", test()).tbs());
    let dns = names("spiffe://example.org/spire/throwaway", &["web.example.org"]);
    refused("with a DNS name", "form", &test().with(extension(&dns, true)).tbs());
    let spki = key(Algorithm::EcP256, 2).spki().to_vec();
    refused("for another key", "form", &Forge { spki, ..test() }.tbs());
    refused("under another id", "form", &test().with(extension(&uris(&[ID]), true)).tbs());
    refused("with another serial number", "form", &Forge { serial: vec![2], ..test() }.tbs());
    let other = Forge::self_test(&ca_key(), "spiffe://other.example", now());
    refused("of another trust domain", "trust_domain", &other.tbs());
    let mut not_critical = test();
    not_critical.extensions[1].critical = false;
    refused("with names that are not critical", "form", &not_critical.tbs());
    let no_leaves = Profile { leaf: None, ..profile() };
    assert_eq!(no_leaves.judge(&ca_key(), &test().tbs(), now()).unwrap_err().rule, "leaf");
}

#[test]
fn names_that_are_not_one_spiffe_id_are_refused() {
    let with = |names: SubjectAltName| leaf().with(extension(&names, false)).tbs();
    let other = "spiffe://example.org/other";
    for (what, names) in [
        ("no URI", uris(&[])),
        ("two URIs", uris(&[ID, other])),
        ("one twice", uris(&[ID, ID])),
        ("no SPIFFE ID", uris(&["https://example.org/web"])),
        ("upper case", uris(&["spiffe://EXAMPLE.org/web"])),
        ("a query", uris(&["spiffe://example.org/web?x"])),
        ("an escape", uris(&["spiffe://example.org/%77eb"])),
        ("dots", uris(&["spiffe://example.org/a/../web"])),
        ("a port", uris(&["spiffe://example.org:1/web"])),
    ] {
        refused(what, "form", &with(names));
    }
    let mut non_ascii = extension(&uris(&[ID]), false);
    let bytes: Vec<u8> =
        non_ascii.extn_value.as_bytes().iter().map(|b| if *b == b'w' { 0xe9 } else { *b }).collect();
    non_ascii.extn_value = OctetString::new(bytes).unwrap();
    refused("no ASCII", "form", &leaf().with(non_ascii).tbs());
    let mut nul = extension(&uris(&[ID]), false);
    let bytes: Vec<u8> = nul.extn_value.as_bytes().iter().map(|b| if *b == b'w' { 0 } else { *b }).collect();
    nul.extn_value = OctetString::new(bytes).unwrap();
    refused("a NUL", "form", &leaf().with(nul).tbs());
    let mail = GeneralName::Rfc822Name(Ia5String::new("a@b").unwrap());
    refused("a mail address", "form", &with(SubjectAltName([uris(&[ID]).0, vec![mail]].concat())));
    let mut doubled = leaf();
    doubled.extensions.push(extension(&uris(&[other]), false));
    refused("two alternative names", "form", &doubled.tbs());
}

#[test]
fn dns_names_are_the_rules_and_written_in_one_way() {
    let with = |dns: &[&str]| leaf().with(extension(&names(ID, dns), false));
    for good in [
        &["web.example.org"][..],
        &["a.svc.example.org", "web.example.org", "x.y.svc.example.org"],
        &["*.svc.example.org"],
    ] {
        judge(&with(good).tbs()).unwrap_or_else(|refused| panic!("{good:?}: {refused}"));
        let named = Forge { subject: format!("O=SPIRE,CN={}", good[0]), ..with(good) };
        judge(&named.tbs()).unwrap_or_else(|refused| panic!("{good:?}: {refused}"));
    }
    for other in [
        &["bank.example"][..],
        &["svc.example.org"],
        &["evilsvc.example.org"],
        &["web.example.org", "bank.example"],
        &["*.example.org"],
        &["*.a.svc.example.org"],
        &["*.web.example.org"],
    ] {
        refused(&format!("{other:?}"), "leaf.dns_names", &with(other).tbs());
    }
    for bad in [
        &["bank.example\0.svc.example.org"][..],
        &["bank.example\n.svc.example.org"],
        &["bank.example .svc.example.org"],
        &[" a.svc.example.org"],
        &["a..svc.example.org"],
        &[".svc.example.org"],
        &["a.svc.example.org."],
        &["A.svc.example.org"],
        &["a_b.svc.example.org"],
        &["-a.svc.example.org"],
        &["a.*.svc.example.org"],
        &["a*.svc.example.org"],
        &["*"],
        &[""],
        &["a.svc.example.org", "b.svc.example.org", "a.svc.example.org"],
    ] {
        refused(&format!("{bad:?}"), "form", &with(bad).tbs());
    }
    for name in ["bank.example", "WEB.example.org"] {
        let named = Forge { subject: format!("CN={name}"), ..with(&["web.example.org"]) };
        refused("a common name", "leaf.dns_names", &named.tbs());
    }
}

#[test]
fn subject_and_issuer_are_spires_attributes_in_readable_texts() {
    let texts = [
        ("C=US,O=Müller & Söhne,ST=x,L=y,STREET=z,postalCode=1", None),
        ("O=SPIRE,serialNumber=42,x500UniqueIdentifier=00ff", None),
        ("O=SPIRE,emailAddress=a@b", Some("an address")),
        ("O=SPIRE,DC=example", Some("an IA5String")),
        ("O=SPIRE,1.2.3.4=x", Some("an unknown attribute")),
        ("O=", Some("an empty text")),
        ("O= ", Some("a blank")),
        ("O=a\nb", Some("a line's end")),
        ("O=a\0b", Some("a NUL")),
        ("O=#1e0400610062", Some("a BMPString")),
        ("O=#14026162", Some("a TeletexString")),
        ("O=#13024062", Some("an @ in a PrintableString")),
        ("O=#0c02c328", Some("no UTF-8")),
        ("O=#30020500", Some("no text")),
    ];
    for (name, bad) in texts {
        assert!(name.parse::<x509_cert::name::Name>().is_ok(), "{name}");
        let name = name.to_owned();
        for tbs in [Forge { subject: name.clone(), ..leaf() }.tbs(), Forge { issuer: name, ..leaf() }.tbs()] {
            match bad {
                Some(what) => refused(what, "form", &tbs),
                None => drop(judge(&tbs).unwrap()),
            }
        }
    }
}

#[test]
fn extensions_that_make_more_of_a_certificate_are_refused() {
    let usage = |usages: KeyUsages, critical| extension(&KeyUsage(usages.into()), critical);
    let constraints = |ca, path_len_constraint| BasicConstraints { ca, path_len_constraint };
    let sign = KeyUsages::DigitalSignature;
    let nothing = raw(rfc5280::ID_CE_NAME_CONSTRAINTS, &[0x30, 0], true);
    let purpose = |oid: const_oid::ObjectIdentifier| extension(&ExtendedKeyUsage(vec![oid]), false);
    let mut no_usage = leaf();
    no_usage.extensions.remove(0);
    for (what, tbs) in [
        ("an unknown critical extension", leaf().with(raw("1.2.3.4".parse().unwrap(), &[5, 0], true)).tbs()),
        ("an unknown extension", leaf().with(raw("1.2.3.4".parse().unwrap(), &[5, 0], false)).tbs()),
        ("name constraints", leaf().with(nothing).tbs()),
        (
            "a leaf that signs certificates",
            leaf().with(extension(&KeyUsage(sign | KeyUsages::KeyCertSign), true)).tbs(),
        ),
        ("a leaf's usage that is not critical", leaf().with(usage(sign, false)).tbs()),
        ("a leaf without usage", no_usage.tbs()),
        ("a leaf for any purpose", leaf().with(purpose(rfc5280::ANY_EXTENDED_KEY_USAGE)).tbs()),
        ("a leaf for code", leaf().with(purpose(rfc5280::ID_KP_CODE_SIGNING)).tbs()),
        ("a leaf with a path length", leaf().with(extension(&constraints(false, Some(0)), true)).tbs()),
        ("a CA not critical", ca(Some(0)).with(extension(&constraints(true, Some(0)), false)).tbs()),
        (
            "a CA that signs anything",
            ca(Some(0)).with(extension(&KeyUsage(sign | KeyUsages::KeyCertSign), true)).tbs(),
        ),
        ("a CA that signs nothing", ca(Some(0)).with(usage(KeyUsages::CRLSign, true)).tbs()),
        ("a CA with a purpose", ca(Some(0)).with(purpose(rfc5280::ID_KP_SERVER_AUTH)).tbs()),
        (
            "FALSE written out",
            leaf().with(raw(rfc5280::ID_CE_BASIC_CONSTRAINTS, &[0x30, 3, 1, 1, 0], true)).tbs(),
        ),
        (
            "TRUE as 1",
            ca(Some(0)).with(raw(rfc5280::ID_CE_BASIC_CONSTRAINTS, &[0x30, 6, 1, 1, 1, 2, 1, 0], true)).tbs(),
        ),
        ("trailing bytes", leaf().with(raw(rfc5280::ID_CE_BASIC_CONSTRAINTS, &[0x30, 0, 0], true)).tbs()),
        ("padded bits", leaf().with(raw(rfc5280::ID_CE_KEY_USAGE, &[3, 3, 0, 0x80, 0], true)).tbs()),
    ] {
        refused(what, "form", &tbs);
    }
}

#[test]
fn key_identifiers_and_purposes_that_verifiers_stumble_over_are_refused() {
    let authority = |id: &[u8]| {
        let key_identifier = Some(OctetString::new(id).unwrap());
        extension(&AuthorityKeyIdentifier { key_identifier, ..Default::default() }, false)
    };
    let purposes = |oids: &[const_oid::ObjectIdentifier], critical| {
        extension(&ExtendedKeyUsage(oids.to_vec()), critical)
    };
    let (server, client) = (rfc5280::ID_KP_SERVER_AUTH, rfc5280::ID_KP_CLIENT_AUTH);
    let (subject, issuer) = (subject_id(&key(Algorithm::EcP256, 2)), authority_id(&ca_key()));
    for (what, extension) in [
        ("another issuer's identifier", authority(&[7; 20])),
        (
            "a part of the issuer's identifier",
            authority(&issuer.key_identifier.as_ref().unwrap().as_bytes()[..8]),
        ),
        ("no issuer's identifier", extension(&AuthorityKeyIdentifier::default(), false)),
        ("a critical identifier of the issuer", extension(&issuer, true)),
        ("another key's identifier", extension(&subject_id(&ca_key()), false)),
        ("an empty identifier", raw(rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER, &[4, 0], false)),
        ("a critical identifier", extension(&subject, true)),
        ("no purpose", purposes(&[], false)),
        ("a purpose twice", purposes(&[server, client, server], false)),
        ("critical purposes", purposes(&[server, client], true)),
    ] {
        refused(what, "form", &leaf().with(extension.clone()).tbs());
        refused(what, "form", &Forge::with(ca(Some(0)), extension).tbs());
    }
    for hash in [&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &aws_lc_rs::digest::SHA256] {
        let own = aws_lc_rs::digest::digest(hash, ca_key().raw());
        assert!(judge(&leaf().with(authority(&own.as_ref()[..20])).tbs()).is_ok());
    }
    for few in [&[server][..], &[client], &[client, server]] {
        assert!(judge(&leaf().with(purposes(few, false)).tbs()).is_ok());
    }
    let mut plain = leaf();
    plain
        .extensions
        .retain(|e| [rfc5280::ID_CE_KEY_USAGE, rfc5280::ID_CE_SUBJECT_ALT_NAME].contains(&e.extn_id));
    assert!(judge(&plain.tbs()).is_ok());
}

#[test]
fn bytes_that_can_be_read_in_two_ways_are_refused() {
    let whole = leaf().tbs();
    refused("trailing bytes", "form", &[&whole[..], &[0]].concat());
    refused("cut short", "form", &whole[..whole.len() - 1]);
    refused("a longer length", "form", &[&[0x30, 0x83, 0][..], &whole[2..]].concat());
    refused("no extensions", "form", &leaf().parts(&[]));
    refused("no issuer", "form", &Forge { issuer: String::new(), ..leaf() }.tbs());
    let nameless = Forge { subject: String::new(), ..leaf() };
    refused("no subject", "form", &nameless.tbs());
    assert!(judge(&nameless.with(extension(&uris(&[ID]), true)).tbs()).is_ok(), "with critical names");
    for (what, serial) in [
        ("zero", vec![0]),
        ("negative", vec![0x80]),
        ("padded", vec![0, 1]),
        ("21 bytes", vec![1; 21]),
        ("none", vec![]),
    ] {
        refused(what, "form", &Forge { serial, ..leaf() }.tbs());
    }
    refused("ECDSA's name", "form", &Forge { algorithm: rfc5912::ECDSA_WITH_SHA_256, ..leaf() }.tbs());
    let other = Algorithm::MlDsa65.signature_oid().unwrap();
    refused("another ML-DSA", "form", &Forge { algorithm: other, ..leaf() }.tbs());
    let oid = ca_key().algorithm().signature_oid().unwrap().to_der().unwrap();
    let with_null = tlv(0x30, &[&oid[..], &[5, 0]].concat());
    let plain = tlv(0x30, &oid);
    let at = whole.windows(plain.len()).position(|w| w == plain).unwrap();
    let body = [&whole[4..at], &with_null, &whole[at + plain.len()..]].concat();
    refused("an algorithm with parameters", "form", &tlv(0x30, &body));
    let unique = [
        tlv(0x81, &[0, 1]),
        tlv(
            0xa3,
            &tlv(0x30, &leaf().extensions.iter().flat_map(|e| e.to_der().unwrap()).collect::<Vec<_>>()),
        ),
    ]
    .concat();
    refused("a unique identifier", "form", &leaf().parts(&unique));
    let v1 = [&whole[4..4], &whole[9..]].concat();
    refused("version 1", "form", &tlv(0x30, &v1));
    let utc = leaf().tbs();
    let at = utc.windows(2).position(|w| w == [0x17, 13]).unwrap();
    let general = [b"20".as_slice(), &utc[at + 2..at + 15]].concat();
    let mut forged = utc.clone();
    forged.splice(at..at + 15, tlv(0x18, &general));
    let validity = at - 2;
    forged[validity + 1] += 2;
    let body = forged[4..].to_vec();
    refused("GeneralizedTime before 2050", "form", &tlv(0x30, &body));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens to one byte: it is refused, or webpki reads the same (judge asks it).
    #[test]
    fn a_changed_byte_is_never_read_in_two_ways(at: prop::sample::Index, byte: u8, as_ca: bool) {
        let mut tbs = if as_ca { ca(Some(0)).tbs() } else { leaf().tbs() };
        let at = at.index(tbs.len());
        tbs[at] = byte;
        if let Ok(issued) = judge(&tbs) {
            prop_assert_eq!(issued.spiffe_id.trust_domain().as_str(), "example.org");
            prop_assert!(issued.not_after <= now() + 2 * HOUR);
            prop_assert_eq!(issued.ca, as_ca);
        }
    }

    #[test]
    fn no_bytes_make_the_judge_panic(bytes: Vec<u8>) {
        prop_assert!(judge(&bytes).is_err());
    }
}
