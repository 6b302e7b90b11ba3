//! A CA whose name a verifier takes for its issuer's does not count in a path length (RFC 5280 §6.1), so none is signed.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use forge::Forge;
use keyd_core::{Algorithm, SignInput};
use keyd_x509::issuance::{CaRule, Profile};
use keyd_x509::{Certificate, to_pem};

use super::Key;

const CA: &str = "CN=Site CA,O=SPIFFE";

/// Names of a CA below `CA`, and whether OpenSSL takes them for that name.
const NAMES: [(&str, bool); 12] = [
    (CA, true),
    ("CN=site ca,O=SPIFFE", true),
    ("CN=SITE CA,O=Spiffe", true),
    ("CN=Site  CA,O=SPIFFE", true),
    ("CN=#0c085369746520434120,O=SPIFFE", true), // a blank at the end
    ("CN=#0c082053697465204341,O=SPIFFE", true), // a blank before it
    ("CN=#130753697465204341,O=SPIFFE", true),   // PrintableString
    ("O=SPIFFE,CN=Site CA", false),              // other verifiers look for each attribute
    ("CN=SiteCA,O=SPIFFE", false),
    ("CN=\u{ff33}ite CA,O=SPIFFE", false), // a full-width S, as NFKC folds it
    ("CN=S\u{ad}ite CA,O=SPIFFE", false),  // a soft hyphen, which RFC 4518 drops
    ("CN=S\u{131}te CA,O=SPIFFE", false),  // a dotless i
];

/// Names that everyone tells from `CA`.
const OTHERS: [&str; 5] = [
    "CN=below,O=SPIFFE",
    "CN=Site CA,O=SPIRE",
    "CN=Site CA",
    "CN=Site CA,O=SPIFFE,OU=DOWNSTREAM-1",
    "OU=Site CA,O=SPIFFE",
];

#[test]
fn a_ca_below_is_never_named_as_a_verifier_could_take_its_issuers_name() {
    let chain = Chain::new();
    let profile = Profile {
        trust_domain: "example.org".parse().unwrap(),
        own: None,
        ca: Some(CaRule {
            lifetime: Duration::from_secs(24 * 3600),
            path_length: None,
            algorithms: vec![Algorithm::EcP256],
        }),
        leaf: None,
        self_test_lifetime: Duration::ZERO,
    };
    let judge = |name: &str| profile.judge(chain.ca.0.public_key(), &chain.below(name).tbs(), chain.now);
    for (name, same) in NAMES {
        assert_eq!(judge(name).unwrap_err().rule, "ca", "{name}");
        assert_eq!(chain.openssl_takes(name), same, "{name}");
    }
    for name in OTHERS {
        judge(name).unwrap_or_else(|refused| panic!("{name}: {refused}"));
        assert!(!chain.openssl_takes(name), "{name}");
    }
}

/// A root, a CA that may have leaves alone, and what it signs against that.
struct Chain {
    root: Key,
    ca: Key,
    below: Key,
    leaf: Key,
    now: SystemTime,
}

impl Chain {
    fn new() -> Self {
        let key = || Key::new(Algorithm::EcP256);
        Self { root: key(), ca: key(), below: key(), leaf: key(), now: SystemTime::now() }
    }

    fn below(&self, name: &str) -> Forge {
        Forge { issuer: CA.to_owned(), subject: name.to_owned(), ..self.forge(&self.ca, &self.below, None) }
    }

    fn forge(&self, issuer: &Key, key: &Key, path_length: Option<u8>) -> Forge {
        let (issuer, key) = (issuer.0.public_key(), key.0.public_key());
        Forge::ca(issuer, key, "spiffe://example.org", path_length, self.now)
    }

    /// Whether `openssl verify` takes a leaf below a CA of this name below the one that may have leaves alone.
    fn openssl_takes(&self, name: &str) -> bool {
        let root = "CN=root".to_owned();
        let anchor =
            Forge { issuer: root.clone(), subject: root.clone(), ..self.forge(&self.root, &self.root, None) };
        let ca = Forge { issuer: root, subject: CA.to_owned(), ..self.forge(&self.root, &self.ca, Some(0)) };
        let (issuer, key) = (self.below.0.public_key(), self.leaf.0.public_key());
        let leaf = Forge::leaf(issuer, key, "spiffe://example.org/web", self.now);
        let leaf = Forge { issuer: name.to_owned(), ..leaf };

        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, certificates: &[Certificate]| {
            fs::write(dir.path().join(file), to_pem(certificates).unwrap()).unwrap();
        };
        write("root", &[signed(&self.root, &anchor)]);
        write("between", &[signed(&self.root, &ca), signed(&self.ca, &self.below(name))]);
        write("leaf", &[signed(&self.below, &leaf)]);
        let arguments = ["verify", "-CAfile", "root", "-untrusted", "between", "leaf"];
        let verify = Command::new("openssl").args(arguments).current_dir(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&verify.stderr);
        assert!(
            verify.status.success() || said.contains("path length constraint exceeded"),
            "{name}: {said}"
        );
        verify.status.success()
    }
}

fn signed(key: &Key, forge: &Forge) -> Certificate {
    let signature = key.0.sign(SignInput::Message(&forge.tbs())).unwrap();
    Certificate::from_der(&forge.signed(&signature)).unwrap()
}
