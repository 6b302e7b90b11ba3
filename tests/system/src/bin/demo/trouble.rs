//! What must hold when something goes wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keyd_core::Algorithm;
use keyd_x509::request;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use system::keyd::Keyd;
use system::minter::{Local, Minter};
use system::other_user::keyd_as_another_user;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::line::TRUST_DOMAIN;
use crate::node::Node;
use crate::server::Server;

/// How long SVIDs are minted while workers are killed.
const LOAD: Duration = Duration::from_secs(2);
/// Pause between two kills.
const PAUSE: Duration = Duration::from_millis(400);
/// SVIDs minted at once.
const AT_ONCE: usize = 2;

/// A local user whom no `[[allow]]` table names gets nothing from keyd.
pub async fn no_rights(node: &Node) -> Result<String> {
    let socket = node.keyd_socket();
    let dir = socket.parent().context("a socket lies in a directory")?;
    let output = keyd_as_another_user(dir, "keyd.sock", &["--json", "key", "list"]).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3), "exit code {:?}: {said}", output.status.code());
    let error: Value = serde_json::from_str(said.trim()).with_context(|| said.to_string())?;
    ensure!(error["error"]["reason"] == "DENIED", "{error}");
    Ok(error["error"]["message"].as_str().unwrap_or_default().to_owned())
}

/// The process that holds the vendor's module is killed again and again while SVIDs are minted; every mint goes through.
pub async fn kill_worker_under_load(server: &Server) -> Result<String> {
    let csr = request(
        &Local::generate(Algorithm::EcP256)?,
        Some(&format!("spiffe://{TRUST_DOMAIN}/load").parse()?),
    )
    .await?;
    let minter = Minter::new(&server.spire_dir());
    let until = Instant::now() + LOAD;
    let mut load = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (minter, csr) = (minter.clone(), csr.clone());
        load.spawn(async move {
            let mut minted = 0_u32;
            while Instant::now() < until {
                minter.mint(&csr).await?;
                minted += 1;
            }
            anyhow::Ok(minted)
        });
    }
    let mut killed = BTreeSet::new();
    while Instant::now() + PAUSE < until {
        sleep(PAUSE).await;
        // Between two workers there is none; the next one is started by the next call.
        if let Ok(worker) = server.keyd()?.worker() {
            kill(worker, Signal::SIGKILL)?;
            killed.insert(worker);
        }
    }
    let mut minted = 0;
    while let Some(ended) = load.join_next().await {
        minted += ended?.context("a mint failed while the worker was killed")?;
    }
    ensure!(killed.len() >= 2, "only {} workers could be killed", killed.len());
    Ok(format!("{} workers killed with -9 while SVIDs were minted; all of {minted} were", killed.len()))
}

/// What an operator sees at the end.
pub async fn status(server: &Server, node: &Node) -> Result<String> {
    let mut words = Vec::new();
    for keyd in [server.keyd()?, node.keyd()?] {
        let status = keyd.json(&["status"]).await?;
        for device in status["devices"].as_array().context("no devices")? {
            ensure!(device["state"] == "ok", "{device}");
            words.push(format!("{} ok", device["device"].as_str().unwrap_or_default()));
        }
    }
    Ok(words.join("; "))
}

/// Both keyds are killed with -9 and come back with every key.
pub async fn kill_and_come_back(server: &mut Server, node: &mut Node) -> Result<String> {
    let before = (keys(server.keyd()?, "hsm").await?, keys(node.keyd()?, "tpm-sealed").await?);
    server.crash_keyd().await?;
    node.crash_keyd().await?;
    let after = (keys(server.keyd()?, "hsm").await?, keys(node.keyd()?, "tpm-sealed").await?);
    ensure!(before == after, "before {before:?}, after {after:?}");
    ensure!(!before.0.is_empty() && !before.1.is_empty(), "there were no keys to lose");
    Ok(format!("{} keys in the token and {} sealed by the TPM are the same", before.0.len(), before.1.len()))
}

/// Id, version and fingerprint of each key, all of which have this protection.
async fn keys(keyd: &Keyd, protection: &str) -> Result<Vec<String>> {
    let listed = keyd.json(&["key", "list"]).await?;
    let keys = listed["keys"].as_array().context("no list of keys")?;
    ensure!(keys.iter().all(|key| key["protection"] == protection), "{listed}");
    Ok(keys.iter().map(|k| format!("{} {} {}", k["key"], k["version"], k["fingerprint"])).collect())
}
