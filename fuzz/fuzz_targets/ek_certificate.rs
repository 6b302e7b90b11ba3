//! An endorsement key certificate, and its chain to an authority.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use keyd_attest::{EkRoots, certified_key};
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::UnixTime;

/// The authority that issued the seeds.
static ROOTS: LazyLock<EkRoots> =
    LazyLock::new(|| EkRoots::from_pem(include_bytes!("../corpus/ek_roots/swtpm")).expect("a CA"));
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

fuzz_target!(|der: &[u8]| {
    let certified = certified_key(der);
    if let Ok(vouched) = ROOTS.verify(der, NOW) {
        assert_eq!(certified.ok(), Some(vouched.key));
    }
});
