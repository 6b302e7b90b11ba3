use super::*;
use crate::certified_key;

/// A verifier that demands a certificate under this authority.
fn roots(authority: &Authority) -> Verifier {
    let ek_roots = Some(EkRoots::from_pem(authority.pem().as_bytes()).unwrap());
    Verifier::new(Policy { ek_roots, enrolled: None, pcrs: PcrSet::new([7]).unwrap() }).unwrap()
}

fn certified(tpm: &SoftTpm, certificate: Vec<u8>) -> Payload {
    Payload::new(Some(certificate), tpm.ek_public(), &tpm.ak_public(), vec![KEY]).unwrap()
}

#[test]
fn a_certified_tpm_attests_and_its_manufacturer_comes_from_the_certificate() {
    let authority = Authority::new("root");
    for ek in [Ek::Rsa2048, Ek::P256, Ek::P384] {
        let tpm = SoftTpm::new(ek);
        let certificate = authority.issue(tpm.ek_spki(), Issue::default());
        let attested = run(&roots(&authority), &tpm, &certified(&tpm, certificate)).unwrap();
        assert!(attested.selectors.contains(&"manufacturer:IBM".to_owned()), "{:?}", attested.selectors);
        assert_eq!(attested.node, None);
    }
}

#[test]
fn the_hash_of_an_endorsement_key_is_that_of_the_spki_in_its_certificate() {
    use der::Encode;
    for ek in [Ek::Rsa2048, Ek::P256, Ek::P384] {
        let tpm = SoftTpm::new(ek);
        let spki = tpm.ek_spki().to_der().unwrap();
        assert_eq!(payload(&tpm).ek.spki(), spki, "from TPMT_PUBLIC");
        let certificate = Authority::new("root").issue(tpm.ek_spki(), Issue::default());
        assert_eq!(certified_key(&certificate).unwrap().spki(), spki, "from a certificate");
    }
}

#[test]
fn manufacturers_are_named_as_their_registry_spells_them() {
    let authority = Authority::new("root");
    let tpm = SoftTpm::new(Ek::P256);
    let manufacturer = |id| {
        let issue = Issue { manufacturer: id, ..Issue::default() };
        let roots = EkRoots::from_pem(authority.pem().as_bytes()).unwrap();
        roots.verify(&authority.issue(tpm.ek_spki(), issue), at(1)).map(|v| v.manufacturer)
    };
    assert_eq!(manufacturer(Some("id:53544D20")).unwrap().as_deref(), Some("STM"));
    assert_eq!(manufacturer(Some("id:00001014")).unwrap().as_deref(), Some("id:00001014"));
    assert_eq!(manufacturer(None).unwrap(), None);
    for odd in ["IBM", "id:49", "id:zzzzzzzz"] {
        assert!(matches!(manufacturer(Some(odd)), Err(Refusal::EkCertificateMalformed { .. })), "{odd}");
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (trusted, other) = (Authority::new("root"), Authority::new("root"));
    let tpm = SoftTpm::new(Ek::P256);
    let certificate = other.issue(tpm.ek_spki(), Issue::default());
    let refusal = run(&roots(&trusted), &tpm, &certified(&tpm, certificate)).unwrap_err();
    assert!(matches!(refusal, Refusal::EkCertificateUntrusted { .. }), "{refusal}");
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = Authority::new("root");
    let certificate = authority.issue(SoftTpm::new(Ek::P256).ek_spki(), Issue::default());
    let roots = EkRoots::from_pem(authority.pem().as_bytes()).unwrap();
    roots.verify(&certificate, at(authority::NOT_AFTER)).unwrap();
    let refusal = roots.verify(&certificate, at(authority::NOT_AFTER + 1)).unwrap_err();
    assert!(matches!(refusal, Refusal::EkCertificateUntrusted { .. }), "{refusal}");
}

#[test]
fn certificates_for_something_else_are_refused() {
    let authority = Authority::new("root");
    let tpm = SoftTpm::new(Ek::P256);
    for usage in [None, Some("1.3.6.1.5.5.7.3.1")] {
        let certificate = authority.issue(tpm.ek_spki(), Issue { usage, ..Issue::default() });
        let refusal = run(&roots(&authority), &tpm, &certified(&tpm, certificate)).unwrap_err();
        assert!(matches!(refusal, Refusal::EkCertificateUsage), "{refusal}");
    }
    let ca = authority.issue(tpm.ek_spki(), Issue { ca: true, ..Issue::default() });
    let refusal = run(&roots(&authority), &tpm, &certified(&tpm, ca)).unwrap_err();
    assert!(matches!(refusal, Refusal::EkCertificateUntrusted { .. }), "{refusal}");
}

#[test]
fn a_certificate_of_another_tpm_is_refused() {
    let authority = Authority::new("root");
    let (tpm, other) = (SoftTpm::new(Ek::P256), SoftTpm::new(Ek::P256));
    let certificate = authority.issue(other.ek_spki(), Issue::default());
    let refusal = run(&roots(&authority), &tpm, &certified(&tpm, certificate)).unwrap_err();
    assert!(matches!(refusal, Refusal::EkKeyDiffers), "{refusal}");
}

#[test]
fn a_tpm_without_certificate_attests_with_the_one_in_its_manifest_alone() {
    let authority = Authority::new("root");
    let tpm = SoftTpm::new(Ek::P256);
    let both = |ek_certificate| {
        let manifest = Manifest { ek_certificate, ..manifest(&tpm) };
        let ek_roots = Some(EkRoots::from_pem(authority.pem().as_bytes()).unwrap());
        let enrolled = Some(enrolled(&[manifest]));
        Verifier::new(Policy { ek_roots, enrolled, pcrs: PcrSet::new([7]).unwrap() }).unwrap()
    };
    let refusal = run(&both(None), &tpm, &payload(&tpm)).unwrap_err();
    assert!(matches!(refusal, Refusal::EkCertificateMissing), "{refusal}");
    let certificate = EkCertificate(authority.issue(tpm.ek_spki(), Issue::default()));
    run(&both(Some(certificate)), &tpm, &payload(&tpm)).unwrap();
}

#[test]
fn a_certified_tpm_that_is_not_enrolled_is_refused_where_both_are_demanded() {
    let authority = Authority::new("root");
    let (tpm, other) = (SoftTpm::new(Ek::P256), SoftTpm::new(Ek::P256));
    let ek_roots = Some(EkRoots::from_pem(authority.pem().as_bytes()).unwrap());
    let enrolled = Some(enrolled(&[manifest(&other)]));
    let both = Verifier::new(Policy { ek_roots, enrolled, pcrs: PcrSet::new([7]).unwrap() }).unwrap();
    let certificate = authority.issue(tpm.ek_spki(), Issue::default());
    let refusal = run(&both, &tpm, &certified(&tpm, certificate)).unwrap_err();
    assert!(matches!(refusal, Refusal::EkNotEnrolled { .. }), "{refusal}");
}

#[test]
fn roots_that_are_none_are_refused() {
    assert!(matches!(EkRoots::from_pem(b""), Err(Refusal::Roots { .. })));
    assert!(matches!(EkRoots::from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n"), Err(Refusal::Roots { .. })));
    let authority = Authority::new("root");
    let leaf = authority.issue(SoftTpm::new(Ek::P256).ek_spki(), Issue::default());
    let leaf = der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &leaf).unwrap();
    let refusal = EkRoots::from_pem([authority.pem(), leaf].concat().as_bytes()).unwrap_err();
    assert!(refusal.to_string().contains("certificate 2: not a certificate of an authority"), "{refusal}");
}
