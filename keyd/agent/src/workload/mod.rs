//! Who is calling: the process at the other end of the socket, in selectors as SPIRE names them.

mod files;
mod peer;
mod selectors;

pub use peer::{Connection, Peer};
pub use selectors::attest;
