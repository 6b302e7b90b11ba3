//! A certificate, and all that is ever asked of one.

#![no_main]

use keyd_tls::Bundles;
use keyd_x509::Certificate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    let Ok(certificate) = Certificate::from_der(der) else { return };
    assert_eq!(certificate.der(), der);
    let _ = certificate.subject().to_string();
    let _ = certificate.public_key();
    let _ = (certificate.not_before(), certificate.not_after(), certificate.serial());
    let _ = certificate.subject_key_id();
    let _ = certificate.leaf_spiffe_id();
    if let Ok(id) = certificate.uri_id() {
        let trust_domain = id.trust_domain().clone();
        let believed = Bundles::default().set(trust_domain, std::slice::from_ref(&certificate)).is_ok();
        assert!(!believed || certificate.is_ca().is_ok_and(|ca| ca), "only a CA is an authority");
    }
});
