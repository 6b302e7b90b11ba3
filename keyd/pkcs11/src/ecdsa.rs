//! Elliptic curves as PKCS#11 writes them, and as the rest of the world does.

use der::asn1::{OctetStringRef, UintRef};
use der::{Decode, Encode};
use keyd_core::Algorithm;

/// Length in bytes of a coordinate, of the group order and so of each half of a signature.
pub(crate) const fn field_len(algorithm: Algorithm) -> usize {
    // The point is `04 || x || y`.
    algorithm.public_len() / 2
}

/// `r || s` (PKCS#11 §6.3.1) as a DER `ECDSA-Sig-Value` (RFC 3279 §2.2.3); `None` for a wrong length.
pub(crate) fn signature_to_der(algorithm: Algorithm, raw: &[u8]) -> Option<Vec<u8>> {
    let len = field_len(algorithm);
    let (r, s) = raw.split_at_checked(len).filter(|(_, s)| s.len() == len)?;
    [UintRef::new(r).ok()?, UintRef::new(s).ok()?].to_der().ok()
}

/// The leftmost bytes of a digest that fit the group order, which is what ECDSA signs (FIPS 186-5 §6.4.1). Some
/// tokens refuse a longer one.
pub(crate) fn leftmost(algorithm: Algorithm, digest: &[u8]) -> &[u8] {
    digest.get(..field_len(algorithm)).unwrap_or(digest)
}

/// The point in a CKA_EC_POINT: in an OCTET STRING as the standard says, or bare as some tokens have it.
pub(crate) fn point(algorithm: Algorithm, value: &[u8]) -> &[u8] {
    if value.len() == algorithm.public_len() {
        return value;
    }
    <&OctetStringRef>::from_der(value).map_or(value, OctetStringRef::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_lose_leading_zeros_and_gain_a_sign_byte() {
        let mut raw = vec![0; 64];
        raw[31] = 0x7f; // r = 0x7f
        raw[32] = 0x80; // s = 0x80 00 ...
        let der = signature_to_der(Algorithm::EcP256, &raw).unwrap();
        assert_eq!(der[..8], [0x30, 0x26, 0x02, 0x01, 0x7f, 0x02, 0x21, 0x00]);
    }

    #[test]
    fn a_signature_of_another_length_is_none() {
        for len in [0, 63, 65, 96] {
            assert_eq!(signature_to_der(Algorithm::EcP256, &vec![1; len]), None, "{len}");
        }
    }

    #[test]
    fn a_point_is_found_bare_and_wrapped() {
        let bare = [&[4][..], &[9; 64]].concat();
        let wrapped = [&[0x04, 65][..], &bare].concat();
        assert_eq!(point(Algorithm::EcP256, &bare), bare);
        assert_eq!(point(Algorithm::EcP256, &wrapped), bare);
    }
}
