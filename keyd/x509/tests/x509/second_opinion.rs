//! What was allowed, read by webpki: a verifier must see the same certificate as the profile did.

use std::time::{Duration, SystemTime};

use der::asn1::BitString;
use der::{Decode, Encode};
use forge::{Forge, tlv, written};
use keyd_core::PublicKey;
use keyd_x509::issuance::Issued;
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, TrustAnchor,
    UnixTime,
};
use webpki::{EndEntityCert, Error, KeyUsage};
use x509_cert::TbsCertificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};

/// Panics where webpki reads `tbs`, which a profile of `issuer` allowed as `issued`, in another way.
pub fn agrees(issuer: &PublicKey, tbs: &[u8], issued: &Issued) {
    let parsed = TbsCertificate::from_der(tbs).expect("a profile allowed what is no certificate");
    let der = certificate(tbs);
    let read = EndEntityCert::try_from(&der).expect("webpki does not read what a profile allowed");
    let uris: Vec<&str> = read.valid_uri_names().collect();
    assert_eq!(uris, [issued.spiffe_id.as_str()]);
    let dns: Vec<&str> = read.valid_dns_names().collect();
    assert_eq!(dns, dns_names(&parsed), "webpki reads other DNS names");
    assert_eq!(read.serial(), issued.serial);
    let key = PublicKey::from_spki(&read.subject_public_key_info()).expect("a public key");
    assert_eq!(key.fingerprint(), issued.spki_sha256);

    let name = parsed.issuer().to_der().expect("a name");
    let anchor = TrustAnchor {
        subject: contents(&name).into(),
        subject_public_key_info: contents(issuer.spki()).into(),
        name_constraints: None,
    };
    let believers = [Believer::of(issuer, &parsed)];
    let at = |time| verified(&read, &anchor, &believers, &[], time);
    if issued.ca {
        let refused = at(issued.not_after);
        assert!(
            matches!(refused, Err(Error::CaUsedAsEndEntity)),
            "webpki takes a CA for a leaf: {refused:?}"
        );
        if key != *issuer {
            chains_below(issuer, &parsed, &key, &der, &anchor, issued);
        }
        return;
    }
    let second = Duration::from_secs(1);
    for inside in [issued.not_before, issued.not_after] {
        match at(inside) {
            Ok(()) | Err(Error::RequiredEkuNotFoundContext(_)) => {}
            Err(error) => panic!("webpki refuses what a profile allowed: {error:?}"),
        }
    }
    assert!(matches!(at(issued.not_after + second), Err(Error::CertExpired { .. })));
    if issued.not_before > SystemTime::UNIX_EPOCH + second {
        assert!(matches!(at(issued.not_before - second), Err(Error::CertNotValidYet { .. })));
    }
}

/// A leaf below the CA that was allowed is valid, and one below a CA below it as the path length says.
fn chains_below(
    issuer: &PublicKey,
    ca: &TbsCertificate,
    key: &PublicKey,
    der: &CertificateDer<'_>,
    anchor: &TrustAnchor<'_>,
    issued: &Issued,
) {
    let id = issued.spiffe_id.as_str();
    let within = |forge: Forge| Forge { not_before: issued.not_before, not_after: issued.not_after, ..forge };
    let named = written(ca.subject());
    let leaf =
        within(Forge { issuer: named.clone(), ..Forge::leaf(key, issuer, id, issued.not_before) }).tbs();
    let below = Forge {
        subject: format!("OU=below,{named}"),
        issuer: named,
        ..Forge::ca(key, issuer, id, None, issued.not_before)
    };
    let last = Forge { issuer: below.subject.clone(), ..Forge::leaf(issuer, key, id, issued.not_before) };
    let (below, last) = (within(below).tbs(), within(last).tbs());

    let parse = |tbs: &[u8]| TbsCertificate::from_der(tbs).expect("a certificate");
    let believers =
        [Believer::of(issuer, ca), Believer::of(key, &parse(&leaf)), Believer::of(issuer, &parse(&last))];
    let chained = |leaf: &[u8], between: &[CertificateDer<'_>]| {
        let leaf = certificate(leaf);
        let leaf = EndEntityCert::try_from(&leaf).expect("a certificate");
        verified(&leaf, anchor, &believers, between, issued.not_after)
    };
    let one = chained(&leaf, std::slice::from_ref(der));
    assert_eq!(one, Ok(()), "webpki builds no chain over the CA that a profile allowed");
    let two = chained(&last, &[der.clone(), certificate(&below)]);
    let constraints = ca.get_extension::<BasicConstraints>().expect("a CA").expect("a CA").1;
    match constraints.path_len_constraint {
        Some(0) => assert_eq!(two, Err(Error::PathLenConstraintViolated)),
        _ => assert_eq!(two, Ok(())),
    }
}

fn verified(
    leaf: &EndEntityCert<'_>,
    anchor: &TrustAnchor<'_>,
    believers: &[Believer],
    between: &[CertificateDer<'_>],
    time: SystemTime,
) -> Result<(), Error> {
    let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let algorithms: Vec<_> = believers.iter().map(|b| b as &dyn SignatureVerificationAlgorithm).collect();
    let (anchors, usage) = (std::slice::from_ref(anchor), KeyUsage::server_auth());
    let time = UnixTime::since_unix_epoch(time);
    leaf.verify_for_usage(&algorithms, anchors, between, time, usage, None, None).map(drop)
}

/// With some signature.
fn certificate(tbs: &[u8]) -> CertificateDer<'static> {
    let algorithm =
        TbsCertificate::from_der(tbs).and_then(|tbs| tbs.signature().to_der()).expect("an algorithm");
    let signature = BitString::from_bytes(&[0; 8]).and_then(|s| s.to_der()).expect("a bit string");
    CertificateDer::from(tlv(0x30, &[tbs.to_vec(), algorithm, signature].concat()))
}

fn dns_names(tbs: &TbsCertificate) -> Vec<String> {
    let names = tbs.get_extension::<SubjectAltName>().expect("names").expect("names").1;
    let dns = names.0.into_iter().filter_map(|name| match name {
        GeneralName::DnsName(dns) => Some(dns.as_str().to_owned()),
        _ => None,
    });
    dns.collect()
}

fn issuer_algorithm(issuer: &PublicKey) -> Vec<u8> {
    let spki = spki::SubjectPublicKeyInfoRef::from_der(issuer.spki()).expect("a public key");
    spki.algorithm.to_der().expect("an algorithm")
}

fn contents(der: &[u8]) -> &[u8] {
    der::asn1::AnyRef::from_der(der).expect("DER").value()
}

/// Takes every signature for good: what is asked is how the rest is read.
#[derive(Debug)]
struct Believer {
    signature: &'static [u8],
    key: &'static [u8],
}

impl Believer {
    /// For what `issuer` signs with the algorithm that `tbs` names.
    fn of(issuer: &PublicKey, tbs: &TbsCertificate) -> Self {
        let algorithm = tbs.signature().to_der().expect("an algorithm");
        Self {
            signature: contents(&algorithm).to_vec().leak(),
            key: contents(&issuer_algorithm(issuer)).to_vec().leak(),
        }
    }
}

impl SignatureVerificationAlgorithm for Believer {
    fn verify_signature(&self, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        AlgorithmIdentifier::from_slice(self.key)
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        AlgorithmIdentifier::from_slice(self.signature)
    }
}
