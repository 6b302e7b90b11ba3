//! SPIRE CredentialComposer that certifies attested keys alone.
