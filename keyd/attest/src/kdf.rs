//! The TPM's own key derivation (Part 1 §11.4.10) and the digests and MACs that it rests on.

use aws_lc_rs::hmac;
use keyd_core::Hash;
use keyd_core::crypto::digest;
use zeroize::Zeroizing;

/// SHA-256 over the parts, one after another.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(&digest(Hash::Sha256, parts));
    out
}

/// HMAC over the parts, one after another.
pub(crate) fn hmac(hash: Hash, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
        Hash::Sha512 => hmac::HMAC_SHA512,
    };
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    for part in parts {
        context.update(part);
    }
    context.sign().as_ref().to_vec()
}

/// KDFa: counter mode of SP 800-108 over HMAC. `context` is the TPM's contextU and contextV, one after another; the
/// key has `bits` bits, a multiple of 8.
pub(crate) fn kdfa(hash: Hash, key: &[u8], label: &str, context: &[u8], bits: u32) -> Zeroizing<Vec<u8>> {
    blocks(bits, |counter| {
        let parts: [&[u8]; 5] =
            [&counter.to_be_bytes(), label.as_bytes(), &[0], context, &bits.to_be_bytes()];
        hmac(hash, key, &parts)
    })
}

/// KDFe: the concatenation KDF of SP 800-56A over a shared secret and the x coordinates of both public keys.
pub(crate) fn kdfe(
    hash: Hash,
    z: &[u8],
    label: &str,
    party_u: &[u8],
    party_v: &[u8],
    bits: u32,
) -> Zeroizing<Vec<u8>> {
    blocks(bits, |counter| {
        digest(hash, &[&counter.to_be_bytes(), z, label.as_bytes(), &[0], party_u, party_v])
    })
}

fn blocks(bits: u32, block: impl Fn(u32) -> Vec<u8>) -> Zeroizing<Vec<u8>> {
    let len = usize::try_from(bits / 8).unwrap_or_default();
    let mut out = Zeroizing::new(Vec::with_capacity(len + 64));
    for counter in 1.. {
        if out.len() >= len {
            break;
        }
        out.extend_from_slice(&Zeroizing::new(block(counter)));
    }
    out.truncate(len);
    out
}
