//! TPM attestation without a TSS: wire structures, verifier, protocol state machines.
