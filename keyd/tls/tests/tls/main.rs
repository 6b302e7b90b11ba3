//! Links with OpenSSL 3.5 at the other end, what is refused, and keys that are slow or change.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod interop;
mod keys;
mod refusals;
mod support;
