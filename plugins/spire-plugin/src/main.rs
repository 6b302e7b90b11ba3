//! The one plugin binary: it is the plugin that SPIRE asks for.

fn main() {}
