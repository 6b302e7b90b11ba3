//! A node whose keys are sealed to its measured state.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use keyd_core::Protection;
use peers::interposer::Interposer;
use peers::swtpm::Swtpm;
use serde_json::Value;
use system::keyd::{Keyd, namespaces};

/// A PCR that any locality may extend.
const PCR: &str = "16";

/// A PCR moves, as after a firmware update: `keyd doctor` names it, and `keyd reseal` makes it the state to come.
pub async fn moved_pcr(dir: &Path) -> Result<String> {
    let tpm = Swtpm::start(&dir.join("tpm"))?;
    // The software TPM serves one connection at a time; the interposer lets another one in.
    let bus = Interposer::before(&tpm)?;
    let config = format!("[tpm]\ntcti = {:?}\nseal_to = \"pcrs\"\npcrs = [7, {PCR}]\n", bus.tcti())
        + &namespaces(&[("sealed", &[Protection::TpmSealed])]);
    let keyd = Keyd::start(dir, &config).await?;
    keyd.json(&["key", "create", "sealed/key"]).await?;
    ensure!(findings(&keyd).await?.is_empty(), "something is wrong before anything moved");

    bus.hang_up();
    let digest = format!("{PCR}:sha256={}", "07".repeat(32));
    ensure!(tpm.tool("tpm2_pcrextend").arg(digest).status()?.success(), "tpm2_pcrextend");
    let found = findings(&keyd).await?;
    let told = found.first().and_then(|f| f["next_step"].as_str()).context("doctor finds nothing")?;
    ensure!(told.contains(&format!("PCR {PCR} was")), "{told}");

    keyd.json(&["reseal"]).await?;
    ensure!(findings(&keyd).await?.is_empty(), "doctor still finds something after `keyd reseal`");
    keyd.stop().await?;
    let what = told.split(". ").next().unwrap_or(told);
    Ok(format!("keyd doctor: {what}; after keyd reseal it finds nothing"))
}

async fn findings(keyd: &Keyd) -> Result<Vec<Value>> {
    let output = keyd.output(&["--json", "doctor"]).await?;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    Ok(said["findings"].as_array().context("no list of findings")?.clone())
}
