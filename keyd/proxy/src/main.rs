//! `keyd-proxy`: mutual TLS before a plain server, with rules by SPIFFE ID.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyd_proxy::main()
}
