//! What must hold when something goes wrong.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system::keyd::Keyd;
use system::other_user::keyd_as_another_user;

use crate::node::Node;
use crate::server::Server;

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

/// Both keyds are killed with -9 and come back with every key.
pub async fn kill_and_come_back(server: &mut Server, node: &mut Node) -> Result<String> {
    let before = (keys(server.keyd()?).await?, keys(node.keyd()?).await?);
    server.crash_keyd().await?;
    node.crash_keyd().await?;
    let after = (keys(server.keyd()?).await?, keys(node.keyd()?).await?);
    ensure!(before == after, "before {before:?}, after {after:?}");
    ensure!(!before.0.is_empty() && !before.1.is_empty(), "there were no keys to lose");
    Ok(format!("{} keys in the token and {} sealed by the TPM are the same", before.0.len(), before.1.len()))
}

/// Id, version and fingerprint of each key.
async fn keys(keyd: &Keyd) -> Result<Vec<String>> {
    let listed = keyd.json(&["key", "list"]).await?;
    let keys = listed["keys"].as_array().context("no list of keys")?;
    Ok(keys.iter().map(|k| format!("{} {} {}", k["key"], k["version"], k["fingerprint"])).collect())
}
