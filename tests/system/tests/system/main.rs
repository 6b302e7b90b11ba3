//! The whole line on real parts.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod algorithms;
mod audit;
mod broken_off;
mod commands;
mod crash;
mod demo;
mod disk;
mod doctor;
mod documents;
mod downstream;
mod escrow;
mod examples;
mod fairness;
mod faults;
mod limits;
mod manager;
mod metrics;
mod migration;
mod provisioning;
mod refusals;
mod reseal;
mod rollback;
mod rotation;
mod secrets;
mod spire;
mod spire_rsa;
mod tokens;
mod told;
mod vectors;
mod vendor;
