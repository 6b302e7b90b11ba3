//! What a token is given to sign.

use keyd_core::{Algorithm, Hash, RsaPadding, SignInput};

use crate::error::Error;
use crate::frame::MESSAGE_LIMIT;
use crate::wire::Pss;
use crate::{ecdsa, rsa};

/// The data of a [`crate::wire::Sign`], and the hash of RSA-PSS.
pub(crate) fn data(algorithm: Algorithm, input: SignInput<'_>) -> Result<(Vec<u8>, Pss), Error> {
    let refuse = |message| Err(Error::BadRequest { message });
    if let Err(failure) = input.check(algorithm) {
        return refuse(failure.message);
    }
    Ok(match (input, algorithm.hash()) {
        (SignInput::Message(message), None) if message.len() > MESSAGE_LIMIT => {
            let len = message.len();
            return refuse(format!("a message has at most {MESSAGE_LIMIT} bytes, this one {len}"));
        }
        (SignInput::Message(message), None) => (message.to_vec(), Pss::No),
        (SignInput::Message(message), Some(hash)) => (hash.digest(message), Pss::No),
        (SignInput::Digest { digest, .. }, _) => (ecdsa::leftmost(algorithm, digest).to_vec(), Pss::No),
        (SignInput::RsaDigest { padding: RsaPadding::Pkcs1v15, hash, digest }, _) => {
            (rsa::digest_info(hash, digest), Pss::No)
        }
        (SignInput::RsaDigest { padding: RsaPadding::Pss, hash, digest }, _) => {
            let pss = match hash {
                Hash::Sha256 => Pss::Sha256,
                Hash::Sha384 => Pss::Sha384,
                Hash::Sha512 => Pss::Sha512,
            };
            (digest.to_vec(), pss)
        }
    })
}
