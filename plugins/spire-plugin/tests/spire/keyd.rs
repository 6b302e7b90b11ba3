//! The real keyd, with software keys and no right beyond those that the plugins and their operator need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keyd_core::{Algorithm, Protection};
use system::keyd::{Keyd, allow};

const NAMESPACES: [&str; 4] = ["spire-server", "spire-agent", "spire", "spire-root"];
const OPERATIONS: [&str; 8] = ["create", "list", "show", "sign", "rotate", "attest", "bind", "status"];

/// Starts it on a directory, with more in its configuration, such as a `[tpm]` table.
pub async fn start(dir: &Path, more: &str) -> Keyd {
    system::build(&["keyd-daemon"]).await.unwrap();
    let tables = NAMESPACES.map(|name| (name, &[Protection::Software][..]));
    Keyd::start(dir, &(more.to_owned() + &allow(&OPERATIONS, &tables))).await.unwrap()
}

/// The keys of a namespace and their algorithms.
pub async fn algorithms(keyd: &Keyd, namespace: &str) -> BTreeMap<String, Algorithm> {
    let keys = keyd.client().list_keys(Some(&namespace.parse().unwrap())).await.unwrap();
    keys.into_iter().map(|key| (key.key.name.to_string(), key.algorithm)).collect()
}

/// `keyd ca init` with a certificate of ten days, into this directory; the file that holds it.
pub async fn root(keyd: &Keyd, dir: &Path, trust_domain: &str) -> PathBuf {
    let file = dir.join("root.pem");
    let out = file.to_str().unwrap();
    let init = ["ca", "init", "--days", "10", "--trust-domain", trust_domain, "--out", out];
    keyd.json(&init).await.unwrap();
    file
}
