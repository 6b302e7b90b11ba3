//! go-plugin and SPIRE's plugin services in Rust.
