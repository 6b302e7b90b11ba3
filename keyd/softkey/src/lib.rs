//! Signing in software with a key that was sealed, wrapped or stored.
