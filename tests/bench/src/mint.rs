//! X.509-SVIDs minted by the unmodified spire-server, on keyd and on its own `disk` KeyManager.

use std::time::Duration;

use anyhow::Result;
use keyd_core::Algorithm;
use keyd_x509::request;
use peers::spire::{ServerConfig, SpireServer};
use system::minter::{Local, Minter};
use tokio::time::Instant;

use crate::figure::{Goal, Table};
use crate::load::{Rounds, Row};
use crate::node::{Node, TRUST_DOMAIN};

/// The row about minting.
pub async fn rows(node: &Node, rounds: Rounds, table: &mut Table) -> Result<()> {
    if !table.wants("spire/mint/ml-dsa-65") {
        return Ok(());
    }
    let dir = node.dir.path().join("disk");
    let keys = dir.join("keys.json");
    let plugins = format!(
        "NodeAttestor \"join_token\" {{ plugin_data {{}} }}\nKeyManager \"disk\" {{ plugin_data {{ keys_path = {keys:?} }} }}"
    );
    let disk = SpireServer::start(&dir, &ServerConfig::hcl(TRUST_DOMAIN, plugins)?).await?;
    let row = Row {
        name: "spire/mint/ml-dsa-65",
        unit: "SVIDs/s",
        goal: Goal::RatioAtLeast(0.65),
        what: "spire-server on keyd, CA ML-DSA-65 tpm-sealed / on its disk KeyManager, CA EC P-256; one client",
    };
    let csr = request(
        &Local::generate(Algorithm::EcP256)?,
        Some(&format!("spiffe://{TRUST_DOMAIN}/rate").parse()?),
    )
    .await?;
    let (on_disk, on_keyd) = (Minter::new(&dir), Minter::new(&node.spire_dir()));
    let figure =
        rounds.compare(row, |time| rate(&on_disk, &csr, time), |time| rate(&on_keyd, &csr, time)).await?;
    table.add(figure);
    disk.stop().await
}

/// SVIDs a second, one after the other.
async fn rate(minter: &Minter, csr: &[u8], time: Duration) -> Result<f64> {
    let (start, mut done) = (Instant::now(), 0_u32);
    while start.elapsed() < time {
        minter.mint(csr).await?;
        done += 1;
    }
    Ok(f64::from(done) / start.elapsed().as_secs_f64())
}
