//! The program itself, between real peers and a plain server, with an agent that does as it is told.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod agent;
mod identities;
mod support;
mod traffic;
