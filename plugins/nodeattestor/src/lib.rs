//! SPIRE NodeAttestor keyd_tpm, server and agent side.
