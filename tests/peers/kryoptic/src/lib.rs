//! Nothing: the crate exists for what its dev-dependencies build.
