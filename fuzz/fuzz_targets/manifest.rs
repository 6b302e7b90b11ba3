//! The manifests of enrolled nodes.

#![no_main]

use keyd_attest::{Enrolled, Manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(manifests) = Manifest::parse_all("nodes.json", text) else { return };
    for manifest in &manifests {
        let written = manifest.to_json().expect("what was read can be written");
        assert_eq!(
            Manifest::parse_all("written.json", &written).as_deref().ok(),
            Some(std::slice::from_ref(manifest))
        );
    }
    if let Ok(enrolled) = Enrolled::from_texts([("nodes.json", text)]) {
        assert!(manifests.iter().all(|m| enrolled.get(&m.ek_sha256) == Some(m)));
    }
});
