//! `keyd`: the key service, and the operator's commands that speak to it.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyd_daemon::main()
}
