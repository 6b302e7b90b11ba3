//! The node agent: attests with the TPM and serves X.509-SVIDs to workloads.

fn main() {}
