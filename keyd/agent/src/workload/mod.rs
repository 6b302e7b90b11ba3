//! Who is calling: the process at the other end of the socket, in selectors as SPIRE names them.

mod connections;
pub(crate) mod files;
mod peer;
mod selectors;

pub use connections::Connections;
pub use peer::Peer;
pub use selectors::attest;
