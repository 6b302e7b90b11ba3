//! Certificates, CSRs, the SPIFFE profile and bundles, with any signer.
