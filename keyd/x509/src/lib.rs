//! Certificates, CSRs, the SPIFFE profile and bundles, with any signer.
//!
//! Nothing here holds a private key: a certificate or request is built, its bytes are signed by whoever implements
//! [`Signer`], and the signature is put in.

mod allowed;
mod build;
mod error;
pub mod issuance;
mod parse;
mod profile;
mod request;
mod spiffe_id;

pub use allowed::{AllowedId, AllowedIds};
pub use build::{Signer, issue_ca, request, self_signed_root};
pub use error::X509Error;
pub use parse::{Certificate, PEM_LIMIT, parse_pem_chain, to_pem};
pub use profile::{CERTIFICATE_LIMIT, Validity};
pub use request::VerifiedRequest;
pub use spiffe_id::{SpiffeId, TrustDomain};
