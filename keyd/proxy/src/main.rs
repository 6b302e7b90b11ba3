//! Mutual TLS before a plain server, with rules by SPIFFE ID.

fn main() {}
