//! `keyd-agent`: attests this node to a SPIRE server with its TPM, and serves X.509-SVIDs to its workloads.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyd_agent::main()
}
