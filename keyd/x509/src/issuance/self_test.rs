//! The certificate by which spire-server tries its CA before it uses it.

use std::time::SystemTime;

use humantime_serde::re::humantime::format_duration;

use super::reading::Certificate;
use super::rules::too_long;
use super::{Profile, Refused, refused};
use crate::SpiffeId;

/// SHA-256 of the SubjectPublicKeyInfo that it certifies. The key stands in SPIRE's source, without its private half.
const KEY: [u8; 32] = [
    0x41, 0x56, 0xe7, 0x9d, 0x2d, 0x1f, 0x63, 0x3a, 0xb3, 0xb0, 0xd3, 0x7b, 0x6f, 0xea, 0xf0, 0x6c, 0x65,
    0x41, 0xc3, 0x0a, 0x5e, 0x7d, 0xfe, 0x35, 0xde, 0x73, 0x1b, 0xb6, 0xcc, 0x78, 0x2c, 0xad,
];
/// The path of its SPIFFE ID.
const PATH: &str = "/spire/throwaway";

/// Whether it is that certificate, as SPIRE writes it: with a name and no word on what its key may do.
pub fn is(c: &Certificate, id: &SpiffeId) -> bool {
    let e = &c.extensions;
    let bare = e.usage.is_none() && e.purposes.is_none() && e.constraints.is_none() && e.subject.is_none();
    id.path() == PATH
        && c.key.fingerprint() == KEY
        && c.serial == [1]
        && bare
        && e.names.dns.is_empty()
        && c.subject.is_empty()
}

/// It has its CA's whole life, so it may live as long as a CA.
pub fn check(profile: &Profile, c: &Certificate, now: SystemTime) -> Result<(), Refused> {
    let longest = profile.self_test_lifetime;
    match too_long(c, longest, now) {
        None => Ok(()),
        Some(left) => Err(refused(
            "self_test",
            format!(
                "by it SPIRE tries a CA that is valid for {}, and the tables for {} let none live longer than {}",
                format_duration(left),
                profile.trust_domain,
                format_duration(longest)
            ),
        )),
    }
}
