//! What keyd is like as a service: how soon it serves, how much memory it keeps, how long a long list takes.

use std::fs;

use anyhow::{Context, Result};
use keyd_api::Client;
use keyd_core::{Algorithm, KeyId, Protection};
use nix::unistd::{Pid, geteuid};
use peers::swtpm::Swtpm;
use peers::token::Token;
use system::keyd::{Keyd, allow, token_with_pin};
use tokio::time::Instant;

use crate::figure::{Figure, Goal, Table};
use crate::load::{Rounds, Row};
use crate::sign;

/// Signatures before memory is looked at.
const SIGNATURES: u64 = 10_000;
/// Keys in the long list.
const KEYS: u64 = 10_000;
/// Keys made at once.
const AT_ONCE: u64 = 8;
/// What this user may do.
const OPERATIONS: [&str; 4] = ["create", "list", "sign", "delete"];

/// The rows about the service.
pub async fn rows(rounds: Rounds, table: &mut Table) -> Result<()> {
    if ["start/tpm-sealed/ml-dsa-65", "memory/10000-signatures"].iter().any(|name| table.wants(name)) {
        start_and_memory(rounds, table).await?;
    }
    if table.wants("list/10000-keys") {
        table.add(list(rounds).await?);
    }
    Ok(())
}

async fn start_and_memory(rounds: Rounds, table: &mut Table) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("keyd-bench-").tempdir()?;
    let tpm_dir = dir.path().join("tpm");
    fs::create_dir_all(&tpm_dir)?;
    let tpm = Swtpm::start(&tpm_dir).context("swtpm")?;
    let token = Token::kryoptic(dir.path())?;
    let config = token_with_pin(&token, dir.path())?
        + &format!("[tpm]\ntcti = \"{}\"\n", tpm.tcti())
        + &allow(&OPERATIONS, &[("sealed", &[Protection::TpmSealed]), ("hsm", &[Protection::Hsm])]);
    let keyd = Keyd::start(dir.path(), &config).await?;
    let (sealed, hsm): (KeyId, KeyId) = ("sealed/sign".parse()?, "hsm/sign".parse()?);
    for key in [&sealed, &hsm] {
        keyd.client().create_key(key, Algorithm::MlDsa65, None).await?;
    }
    keyd.stop().await?;

    let row = Row {
        name: "start/tpm-sealed/ml-dsa-65",
        unit: "ms",
        goal: Goal::ValueAtMost(1000.0),
        what: "from exec to the first signature, the key unsealed by swtpm",
    };
    let first_signature = || async {
        let begin = Instant::now();
        let keyd = Keyd::restart(dir.path()).await?;
        sign::sign((keyd.client(), sealed.clone()), 0).await?;
        let taken = begin.elapsed().as_secs_f64() * 1e3;
        keyd.stop().await?;
        Ok(taken)
    };
    table.add(rounds.repeat(row, first_signature).await?);

    let keyd = Keyd::restart(dir.path()).await?;
    for n in 0..SIGNATURES {
        let key = if n % 2 == 0 { &sealed } else { &hsm };
        sign::sign((keyd.client(), key.clone()), n).await?;
    }
    let memory = |name, (file, line), goal, what| -> Result<Figure> {
        let bytes = memory(keyd.process.pid()?, file, line)? + memory(keyd.worker()?, file, line)?;
        let value = bytes as f64 / 1e6;
        Ok(Figure { name, value, unit: "MB", baseline: None, ratio: None, goal, what })
    };
    table.add(memory(
        "memory/10000-signatures",
        ("status", "VmRSS:"),
        Goal::ValueAtMost(25.0),
        "resident in keyd and its worker with kryoptic, half of the signatures by each of token and TPM",
    )?);
    // A process that cannot be dumped shows its memory map to root alone.
    if geteuid().is_root() {
        table.add(memory(
            "memory/10000-signatures/shared-once",
            ("smaps_rollup", "Pss:"),
            Goal::None,
            "the same, of what processes share each one's part",
        )?);
    }
    keyd.stop().await
}

async fn list(rounds: Rounds) -> Result<Figure> {
    let dir = tempfile::Builder::new().prefix("keyd-bench-").tempdir()?;
    let config =
        format!("[limits]\nkeys = {KEYS}\n") + &allow(&OPERATIONS, &[("soft", &[Protection::Software])]);
    let keyd = Keyd::start(dir.path(), &config).await?;
    let mut running = tokio::task::JoinSet::new();
    for first in 0..AT_ONCE {
        let client: Client = keyd.client();
        running.spawn(async move {
            for n in (first..KEYS).step_by(AT_ONCE as usize) {
                client.create_key(&format!("soft/key-{n}").parse()?, Algorithm::EcP256, None).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let row = Row {
        name: "list/10000-keys",
        unit: "ms",
        goal: Goal::None,
        what: "10,000 software keys, listed with their public keys",
    };
    let client = keyd.client();
    let one_list = || async {
        let begin = Instant::now();
        let keys = client.list_keys(None).await?;
        anyhow::ensure!(keys.len() as u64 == KEYS, "{} keys are listed", keys.len());
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    };
    let figure = rounds.repeat(row, one_list).await?;
    keyd.stop().await?;
    Ok(figure)
}

/// What a line of a file about a process says, in bytes.
fn memory(process: Pid, file: &str, line: &str) -> Result<u64> {
    let file = format!("/proc/{process}/{file}");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    let found =
        text.lines().find_map(|text| text.strip_prefix(line)).and_then(|l| l.split_whitespace().next());
    let kilobytes: u64 = found.with_context(|| format!("{file} has no {line}"))?.parse()?;
    Ok(kilobytes * 1024)
}
