//! OpenSSL 3.5 or newer: the foreign eye on what keyd made.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A command of OpenSSL.
pub fn openssl() -> Command {
    let mut command = Command::from(peers::openssl::command());
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Verifies the chain in `svid` (leaf first) up to a root in `bundle`, and gives the signature algorithm of each
/// certificate on the way, leaf first.
///
/// # Errors
/// What OpenSSL says against it.
pub async fn verify_chain(svid: &Path, bundle: &Path) -> Result<Vec<String>> {
    let mut verify = openssl();
    verify.args(["verify", "-x509_strict", "-CAfile"]).arg(bundle).arg("-untrusted").arg(svid).arg(svid);
    run(verify).await?;
    let certificates = keyd_x509::parse_pem_chain(&svid.display().to_string(), &std::fs::read(svid)?)?;
    let mut algorithms = Vec::new();
    for certificate in &certificates {
        algorithms.push(signature_algorithm(&keyd_x509::to_pem([certificate])?).await?);
    }
    Ok(algorithms)
}

async fn signature_algorithm(pem: &str) -> Result<String> {
    let mut text = openssl();
    let mut child = text
        .args(["x509", "-noout", "-text"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("a pipe was asked for")?.write_all(pem.as_bytes()).await?;
    let text = said(child.wait_with_output().await?)?;
    let line = text.lines().find_map(|l| l.trim().strip_prefix("Signature Algorithm: "));
    Ok(line.context("OpenSSL names no signature algorithm")?.to_owned())
}

async fn run(mut command: Command) -> Result<String> {
    said(command.output().await?)
}

fn said(output: Output) -> Result<String> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "OpenSSL: {out}{err}");
    Ok(out.into_owned())
}
