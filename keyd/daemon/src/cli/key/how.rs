//! How a file is signed: the same options for signing and verifying.

use clap::{Args, ValueEnum};
use keyd_core::{Hash, RsaPadding, SignInput};

/// Options of `sign` and `verify`.
#[derive(Args)]
pub struct How {
    /// Hash the file with this, for elliptic curves and RSA; RSA takes SHA-256 without it
    #[arg(long, value_enum)]
    hash: Option<HashName>,
    /// The file is the digest that --hash made
    #[arg(long, requires = "hash")]
    prehashed: bool,
    /// How RSA pads the digest; the salt of PSS is as long as the digest
    #[arg(long, value_enum)]
    padding: Option<PaddingName>,
}

#[derive(Clone, Copy, ValueEnum)]
enum HashName {
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Clone, Copy, ValueEnum)]
enum PaddingName {
    /// RSASSA-PKCS1-v1_5
    Pkcs1v15,
    /// RSASSA-PSS
    Pss,
}

/// What is signed, in the form in which it is.
pub(super) enum Prepared<'a> {
    Message(&'a [u8]),
    Digest { padding: Option<RsaPadding>, hash: Hash, digest: Vec<u8> },
}

impl How {
    /// Hashes what a file held, where that is asked for.
    pub(super) fn prepare<'a>(&self, given: &'a [u8]) -> Prepared<'a> {
        let padding = self.padding.map(|name| match name {
            PaddingName::Pkcs1v15 => RsaPadding::Pkcs1v15,
            PaddingName::Pss => RsaPadding::Pss,
        });
        let hash = match (self.hash, padding) {
            (None, None) => return Prepared::Message(given),
            (None | Some(HashName::Sha256), _) => Hash::Sha256,
            (Some(HashName::Sha384), _) => Hash::Sha384,
            (Some(HashName::Sha512), _) => Hash::Sha512,
        };
        let digest = if self.prehashed { given.to_vec() } else { hash.digest(given) };
        Prepared::Digest { padding, hash, digest }
    }
}

impl Prepared<'_> {
    /// As keyd takes it.
    pub(super) fn input(&self) -> SignInput<'_> {
        match self {
            Self::Message(message) => SignInput::Message(message),
            Self::Digest { padding: None, hash, digest } => SignInput::Digest { hash: *hash, digest },
            Self::Digest { padding: Some(padding), hash, digest } => {
                SignInput::RsaDigest { padding: *padding, hash: *hash, digest }
            }
        }
    }
}
