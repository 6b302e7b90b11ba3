//! `make demo`: the line from a key in hardware to post-quantum mutual TLS, played on software stand-ins for the
//! hardware, and what proves each step.

#![allow(clippy::indexing_slicing, reason = "serde_json gives null for what is not there")]

mod issuance;
mod line;
mod measured;
mod mtls;
mod node;
mod report;
mod server;
mod trouble;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use line::Line;
use report::Report;

/// Plays the line and says what happened. Leaves svid.pem, bundle.pem, handshake.txt and result.json in target/demo.
#[derive(Parser)]
struct Demo {
    /// Leave everything running at the end, to look around in
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let demo = Demo::parse();
    let out = peers::root().join("target/demo");
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let mut report = match Report::new(&out) {
            Ok(report) => report,
            Err(error) => {
                eprintln!("{error:#}");
                return ExitCode::FAILURE;
            }
        };
        let mut line = Line::default();
        let played = tokio::select! {
            played = line.play(&mut report) => played,
            () = interrupted() => Err(anyhow::anyhow!("interrupted")),
        };
        if played.is_ok() && demo.keep {
            match line.look_around() {
                Ok(commands) => println!("\n{commands}\nCtrl-C ends it."),
                Err(error) => eprintln!("{error:#}"),
            }
            interrupted().await;
        }
        line.stop().await;
        report.finish(played)
    })
}

/// Ctrl-C, or SIGTERM.
async fn interrupted() {
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
}
