//! What was allowed, read by webpki: a verifier must see the same certificate as the profile did.

use std::time::{Duration, SystemTime};

use der::asn1::BitString;
use der::{Decode, Encode};
use keyd_core::PublicKey;
use keyd_x509::issuance::Issued;
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, TrustAnchor,
    UnixTime,
};
use webpki::{EndEntityCert, Error, KeyUsage};
use x509_cert::TbsCertificate;

use super::forge::tlv;

/// Panics where webpki reads `tbs`, which a profile of `issuer` allowed as `issued`, in another way.
pub fn agrees(issuer: &PublicKey, tbs: &[u8], issued: &Issued) {
    let parsed = TbsCertificate::from_der(tbs).expect("a profile allowed what is no certificate");
    let algorithm = parsed.signature().to_der().expect("an algorithm");
    let signature = BitString::from_bytes(&[0; 8]).and_then(|s| s.to_der()).expect("a bit string");
    let der = CertificateDer::from(tlv(0x30, &[tbs.to_vec(), algorithm.clone(), signature].concat()));
    let read = EndEntityCert::try_from(&der).expect("webpki does not read what a profile allowed");
    let uris: Vec<&str> = read.valid_uri_names().collect();
    assert_eq!(uris, [issued.spiffe_id.as_str()]);

    let name = parsed.issuer().to_der().expect("a name");
    let anchor = TrustAnchor {
        subject: contents(&name).into(),
        subject_public_key_info: contents(issuer.spki()).into(),
        name_constraints: None,
    };
    let believer = Believer {
        signature: contents(&algorithm).to_vec().leak(),
        key: contents(&issuer_algorithm(issuer)).to_vec().leak(),
    };
    let at = |time: SystemTime| {
        let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let anchors = std::slice::from_ref(&anchor);
        let time = UnixTime::since_unix_epoch(time);
        let usage = KeyUsage::server_auth();
        read.verify_for_usage(&[&believer], anchors, &[], time, usage, None, None).map(drop)
    };
    let second = Duration::from_secs(1);
    if issued.ca {
        assert!(
            matches!(at(issued.not_after), Err(Error::CaUsedAsEndEntity)),
            "webpki takes a CA for a leaf"
        );
        return;
    }
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
