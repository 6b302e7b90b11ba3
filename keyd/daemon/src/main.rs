//! The key service and its operator's commands.

fn main() {}
