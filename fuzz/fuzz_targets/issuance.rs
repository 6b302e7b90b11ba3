//! What a CA key is asked to sign: refused, or read by webpki as the profile read it.

#![no_main]

#[path = "../../keyd/x509/tests/x509/second_opinion.rs"]
mod second_opinion;

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use keyd_core::{Algorithm, PublicKey};
use keyd_x509::AllowedId;
use keyd_x509::issuance::{Allowed, CaRule, LeafRule, OwnRule, Profile};
use libfuzzer_sys::fuzz_target;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The key of the seeds (examples/seeds.rs), which nobody has.
static KEY: LazyLock<PublicKey> =
    LazyLock::new(|| PublicKey::from_raw(Algorithm::MlDsa44, &[1; 1312]).expect("a key"));

static PROFILE: LazyLock<Profile> = LazyLock::new(|| {
    let below: AllowedId = "spiffe://example.org/*".parse().expect("an id");
    let algorithms = Algorithm::ALL.to_vec();
    Profile {
        trust_domain: "example.org".parse().expect("a trust domain"),
        own: Some(OwnRule { lifetime: DAY }),
        ca: Some(CaRule { lifetime: DAY, path_length: None, algorithms: algorithms.clone() }),
        leaf: Some(LeafRule {
            lifetime: DAY,
            ids: [below].into_iter().collect(),
            algorithms,
            dns_names: vec!["*.example.org".parse().expect("a DNS name")],
        }),
        self_test_lifetime: DAY,
    }
});

fuzz_target!(|message: &[u8]| {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    if let Ok(Allowed::Certificate(issued)) = PROFILE.judge(&KEY, message, now) {
        assert_eq!(issued.spiffe_id.trust_domain(), &PROFILE.trust_domain);
        second_opinion::agrees(&KEY, message, &issued);
    }
});
