//! The TPM: one thread, one queue.
