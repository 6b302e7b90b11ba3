//! Mutual TLS for SPIFFE workloads: rustls with post-quantum key exchange and certificates, a private key that stays
//! where it is, and peers known by SPIFFE ID.
//!
//! [`Settings`] say what one side shows and demands. An [`Acceptor`] or [`Connector`] made of them hands back a
//! finished [`Session`] with the peer's verified SPIFFE ID, or says in words why there is none. TLS 1.3 alone, no
//! resumption: each connection is verified and authorized anew.
//!
//! A [`HandleKey`] signs through a [`RemoteSigner`]. rustls wants the signature from a call that blocks, so handshakes
//! run apart from the program's own runtime, see [`Handshakes`].

mod bundles;
mod config;
mod error;
mod handle_key;
mod handshake;
mod identity;
mod profile;
mod verify;

pub use bundles::Bundles;
pub use config::Settings;
pub use error::{Refusal, TlsError};
pub use handle_key::{HandleKey, RemoteSigner};
pub use handshake::{Acceptor, Connector, HANDSHAKE_LIMIT, Handshakes, Session};
pub use identity::Identity;
pub use keyd_x509::{AllowedId, AllowedIds};
pub use profile::Profile;
