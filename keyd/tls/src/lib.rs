//! rustls with a key held by keyd, and SPIFFE verification.
