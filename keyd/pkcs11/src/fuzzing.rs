//! What the fuzz targets of this crate reach beyond its public interface.

use der::Decode;
use der::asn1::UintRef;
use keyd_core::{Algorithm, Failure, PublicKey};
use prost::Message;

use crate::wire::{Answer, Opening, Reply, Request};
use crate::worker::wrap;
use crate::{ecdsa, frame, rsa};

/// Reads a stream of frames as a worker does: what to be, then what to do.
pub fn frames_to_worker(mut bytes: &[u8]) {
    if let Some(opening) = next::<Opening>(&mut bytes) {
        drop(opening.task);
        while next::<Request>(&mut bytes).is_some() {}
    }
}

/// Reads a stream of frames as keyd does.
pub fn frames_from_worker(mut bytes: &[u8]) {
    while let Some(reply) = next::<Reply>(&mut bytes) {
        if let Some(Answer::Failed(failed)) = &reply.answer {
            drop(Failure::from(failed));
        }
    }
}

/// Reads what a token gives as the value of a CKA_EC_POINT.
pub fn ec_point(algorithm: Algorithm, value: &[u8]) {
    let point = ecdsa::point(algorithm, value);
    if let Ok(key) = PublicKey::from_raw(algorithm, point) {
        assert_eq!(key.raw(), point);
    }
}

/// Reads what a token gives as a signature, and checks that DER holds the same two numbers.
pub fn signature(algorithm: Algorithm, raw: &[u8]) {
    let len = ecdsa::field_len(algorithm);
    let Some(der) = ecdsa::signature_to_der(algorithm, raw) else {
        assert_ne!(raw.len(), 2 * len);
        return;
    };
    let numbers = Vec::<UintRef<'_>>::from_der(&der).unwrap_or_default();
    let padded = numbers.iter().flat_map(|n| {
        let zeros = len.saturating_sub(n.as_bytes().len());
        std::iter::repeat_n(0, zeros).chain(n.as_bytes().iter().copied())
    });
    assert!(padded.eq(raw.iter().copied()), "{der:02x?}");
}

/// Reads what a token gives as CKA_MODULUS and CKA_PUBLIC_EXPONENT, and checks that DER holds the same two numbers.
pub fn rsa_public_key(modulus: &[u8], exponent: &[u8]) {
    let Some(der) = rsa::public_key(modulus, exponent) else {
        assert!(modulus.is_empty() || exponent.is_empty());
        return;
    };
    let significant = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
    let numbers = Vec::<UintRef<'_>>::from_der(&der).unwrap_or_default();
    let read: Vec<_> = numbers.iter().map(|number| significant(number.as_bytes())).collect();
    assert_eq!(read, [significant(modulus), significant(exponent)], "{der:02x?}");
    for algorithm in [Algorithm::Rsa2048, Algorithm::Rsa3072, Algorithm::Rsa4096] {
        if let Ok(key) = PublicKey::from_raw(algorithm, &der) {
            assert_eq!(key.raw(), der);
        }
    }
}

/// Reads what a token wrapped, as it lies in the store.
pub fn wrapped_blob(bytes: &[u8]) {
    if let Some((id, iv, sealed)) = wrap::parts(bytes) {
        assert_eq!([&bytes[..1], id, iv, sealed].concat(), bytes);
    }
}

/// The next message, which must come back the same when it is sent on.
fn next<M: Message + Default + PartialEq>(bytes: &mut &[u8]) -> Option<M> {
    let message = frame::read::<M>(bytes).ok().flatten()?;
    if let Ok(sent) = frame::encode(&message) {
        let again = frame::read::<M>(&mut sent.as_slice());
        assert!(again.is_ok_and(|again| again.as_ref() == Some(&message)));
    }
    Some(message)
}
