//! Which algorithms a link takes.

use keyd_core::Algorithm;
use rustls::NamedGroup;
use rustls::SignatureScheme::{
    ECDSA_NISTP256_SHA256, ECDSA_NISTP384_SHA384, ML_DSA_44, ML_DSA_65, ML_DSA_87,
};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms};
use webpki::aws_lc_rs as algorithms;

/// Which key exchange and which signatures a link takes, both sides alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// X25519MLKEM768 with ML-DSA-44, 65 and 87, in certificates and handshakes.
    #[default]
    PostQuantum,
    /// CNSA 2.0: ML-KEM-1024 with ML-DSA-87 and AES-256 alone.
    Cnsa2,
    /// X25519MLKEM768 with ML-DSA and also ECDSA over P-256 and P-384. For the one link from an agent to its SPIRE
    /// server, whose TLS leaf is an elliptic-curve one even under an ML-DSA CA.
    SpireServer,
}

impl Profile {
    /// Whether a leaf may have a key of this algorithm.
    pub fn allows(self, algorithm: Algorithm) -> bool {
        match self {
            Self::PostQuantum => algorithm.is_ml_dsa(),
            Self::Cnsa2 => algorithm == Algorithm::MlDsa87,
            Self::SpireServer => algorithm.signs_messages(),
        }
    }

    /// The only key exchange that is offered and taken.
    pub(crate) fn group(self) -> NamedGroup {
        self.key_exchange().name()
    }

    pub(crate) fn signatures(self) -> WebPkiSupportedAlgorithms {
        match self {
            Self::PostQuantum => ML_DSA,
            Self::Cnsa2 => ML_DSA_87_ALONE,
            Self::SpireServer => ML_DSA_AND_ECDSA,
        }
    }

    pub(crate) fn provider(self) -> CryptoProvider {
        let mut provider = default_provider();
        provider.kx_groups = vec![self.key_exchange()];
        provider.signature_verification_algorithms = self.signatures();
        if self == Self::Cnsa2 {
            provider.cipher_suites = vec![cipher_suite::TLS13_AES_256_GCM_SHA384];
        }
        provider
    }

    fn key_exchange(self) -> &'static dyn SupportedKxGroup {
        match self {
            Self::PostQuantum | Self::SpireServer => kx_group::X25519MLKEM768,
            Self::Cnsa2 => kx_group::MLKEM1024,
        }
    }
}

const ML_DSA: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[algorithms::ML_DSA_44, algorithms::ML_DSA_65, algorithms::ML_DSA_87],
    mapping: &[
        (ML_DSA_65, &[algorithms::ML_DSA_65]),
        (ML_DSA_87, &[algorithms::ML_DSA_87]),
        (ML_DSA_44, &[algorithms::ML_DSA_44]),
    ],
};

const ML_DSA_87_ALONE: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[algorithms::ML_DSA_87],
    mapping: &[(ML_DSA_87, &[algorithms::ML_DSA_87])],
};

const ML_DSA_AND_ECDSA: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        algorithms::ML_DSA_44,
        algorithms::ML_DSA_65,
        algorithms::ML_DSA_87,
        algorithms::ECDSA_P256_SHA256,
        algorithms::ECDSA_P256_SHA384,
        algorithms::ECDSA_P384_SHA256,
        algorithms::ECDSA_P384_SHA384,
    ],
    // In TLS 1.3 a scheme fixes the curve too (RFC 8446 §4.2.3).
    mapping: &[
        (ML_DSA_65, &[algorithms::ML_DSA_65]),
        (ML_DSA_87, &[algorithms::ML_DSA_87]),
        (ML_DSA_44, &[algorithms::ML_DSA_44]),
        (ECDSA_NISTP256_SHA256, &[algorithms::ECDSA_P256_SHA256]),
        (ECDSA_NISTP384_SHA384, &[algorithms::ECDSA_P384_SHA384]),
    ],
};
