//! `make bench`: what keyd costs, as ratios against the bare part in the same run, because machines differ and are noisy.

mod bare;
mod figure;
mod handshake;
mod load;
mod mint;
mod node;
mod plot;
mod service;
mod sign;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use figure::Table;
use load::Rounds;

/// Measures and prints the table; leaves results.json and ratios.svg.
#[derive(Parser)]
struct Bench {
    /// Only rows whose name holds this
    #[arg(long, default_value = "")]
    only: String,
    /// Rounds of baseline and subject in turn; the median of their ratios counts
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Length of one half of a round, in ms
    #[arg(long, default_value_t = 2000)]
    millis: u64,
    /// Directory for what it leaves
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench"))]
    out: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The bare token alone; the benchmark starts it by itself
    #[command(hide = true)]
    Bare(bare::Task),
}

#[tokio::main]
async fn main() -> Result<()> {
    let bench = Bench::parse();
    if let Some(Part::Bare(task)) = bench.part {
        return task.run();
    }
    let rounds = Rounds { count: bench.rounds, each: Duration::from_millis(bench.millis) };
    let mut table = Table::new(bench.only);
    let node = node::Node::start().await?;
    sign::rows(&node, rounds, &mut table).await?;
    handshake::rows(&node, rounds, &mut table).await?;
    mint::rows(&node, rounds, &mut table).await?;
    node.stop().await?;
    service::rows(rounds, &mut table).await?;
    print!("{}", table.text());
    table.save(&bench.out)
}
