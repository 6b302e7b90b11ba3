//! SPIRE KeyManager on keyd, for server and agent.
