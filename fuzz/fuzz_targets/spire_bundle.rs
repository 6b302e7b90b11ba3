//! A bundle that a SPIRE server sends to the agent.

#![no_main]

use std::sync::LazyLock;

use keyd_x509::TrustDomain;
use libfuzzer_sys::fuzz_target;

static TRUST_DOMAIN: LazyLock<TrustDomain> = LazyLock::new(|| "td".parse().expect("a trust domain"));

fuzz_target!(|bytes: &[u8]| {
    let _ = keyd_agent::fuzzing::bundle(bytes, &TRUST_DOMAIN);
});
