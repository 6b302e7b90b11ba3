//! Logs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Logs to standard error; `KEYD_LOG` sets the level (error, warn, info, debug), else it is info.
pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("KEYD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // The TPM's binding calls an error what keyd asked for, such as a handle that is free; keyd tells what is one.
    let filter = match "tss_esapi=off".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A log that cannot be written, as on a full disk, must not end what is being logged.
        .log_internal_errors(false)
        .init();
}
