//! RSA as PKCS#11 writes it.

use der::Encode;
use der::asn1::UintRef;
use keyd_core::Hash;

/// The public exponent of every key, 65537, big-endian.
pub(crate) const EXPONENT: [u8; 3] = [1, 0, 1];

/// DER RSAPublicKey (RFC 8017 §A.1.1) of a CKA_MODULUS and CKA_PUBLIC_EXPONENT; `None` for what are no numbers.
pub(crate) fn public_key(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    // An empty number would be written without its one byte.
    let number = |bytes| UintRef::new(bytes).ok().filter(|number| !number.as_bytes().is_empty());
    [number(modulus)?, number(exponent)?].to_der().ok()
}

/// DER DigestInfo (RFC 8017 §9.2), which CKM_RSA_PKCS pads.
pub(crate) fn digest_info(hash: Hash, digest: &[u8]) -> Vec<u8> {
    let (oid_end, digest_len) = match hash {
        Hash::Sha256 => (1, 32),
        Hash::Sha384 => (2, 48),
        Hash::Sha512 => (3, 64),
    };
    // SEQUENCE { SEQUENCE { OID 2.16.840.1.101.3.4.2.x, NULL }, OCTET STRING }
    let mut info = vec![0x30, digest_len + 17, 0x30, 13, 0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 3, 4, 2];
    info.extend([oid_end, 0x05, 0, 0x04, digest_len]);
    info.extend_from_slice(digest);
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_leaves_empty_is_no_public_key() {
        assert_eq!(public_key(&[], &EXPONENT), None);
        assert_eq!(public_key(&[0xC5], &[]), None);
        assert_eq!(
            hex::encode(public_key(&[0, 0, 0xC5], &EXPONENT).unwrap()),
            "3009020200c50203010001",
            "without needless zeros, and positive"
        );
    }

    #[test]
    fn a_digest_info_begins_as_the_standard_lists_it() {
        for (hash, prefix) in [
            (Hash::Sha256, "3031300d060960864801650304020105000420"),
            (Hash::Sha384, "3041300d060960864801650304020205000430"),
            (Hash::Sha512, "3051300d060960864801650304020305000440"),
        ] {
            let digest = hash.digest(b"m");
            let info = digest_info(hash, &digest);
            assert_eq!(hex::encode(&info[..19]), prefix);
            assert_eq!(info[19..], digest);
        }
    }
}
