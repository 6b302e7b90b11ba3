//! What a broken SPIRE server would ask its CA key to sign, and what keyd says to that.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use forge::Forge;
use keyd_core::{KeyId, PublicKey, Reason, SignInput};

use crate::line::TRUST_DOMAIN;
use crate::server::Server;

/// A year, which no leaf of the profile may live.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Each of these is refused, by the rule that it breaks; what SPIRE signed all the while is in the audit log.
pub async fn refuse(server: &Server) -> Result<String> {
    let client = server.keyd()?.client();
    let ca: KeyId = "spire-server/x509-CA-A".parse()?;
    let issuer = client.show_key(&ca).await?.public_key;
    let other: PublicKey = client.show_key(&"spire-root/root".parse()?).await?.public_key;
    let (now, td) = (SystemTime::now(), format!("spiffe://{TRUST_DOMAIN}"));
    let leaf = |uri: &str| Forge::leaf(&issuer, &issuer_like(&issuer), uri, now);
    let tries = [
        ("another trust domain", "trust_domain", leaf("spiffe://bank.example/web").tbs()),
        ("a CA with path length 1", "ca.path_length", Forge::ca(&issuer, &other, &td, Some(1), now).tbs()),
        (
            "a leaf for a year",
            "leaf.lifetime",
            Forge { not_after: now + YEAR, ..leaf(&format!("{td}/web")) }.tbs(),
        ),
        ("a plain text", "form", b"pay 100 to mallory".to_vec()),
    ];
    let mut words = Vec::new();
    for (what, rule, message) in tries {
        let failure = match client.sign(&ca, SignInput::Message(&message)).await {
            Ok(_) => anyhow::bail!("{what} was signed"),
            Err(failure) => failure,
        };
        ensure!(failure.reason == Reason::IssuanceRefused, "{what}: {failure}");
        ensure!(failure.message.contains(&format!("rule {rule}")), "{what}: {failure}");
        words.push(format!("{what} (rule {rule})"));
    }
    let issued = server.keyd()?.json(&["audit", "certificates"]).await?;
    let issued = issued["certificates"].as_array().context("no certificates")?;
    let of = |key: &str| issued.iter().filter(|c| c["key"] == key).count();
    ensure!(of("spire-root/root") >= 2 && issued.len() > 3, "{} certificates in the audit log", issued.len());
    let log = server.keyd()?.json(&["audit", "verify"]).await?;
    ensure!(log["verified"] == true && log["trouble"] == "", "{log}");
    Ok(format!(
        "refused: {}; the audit log has the {} certificates that were signed, and its {} records hold",
        words.join(", "),
        issued.len(),
        log["last"]
    ))
}

/// Some key of an algorithm that leaves may have, and not the CA's own.
fn issuer_like(issuer: &PublicKey) -> PublicKey {
    let other: Vec<u8> = issuer.raw().iter().map(|byte| !byte).collect();
    PublicKey::from_raw(issuer.algorithm(), &other).unwrap_or_else(|_| issuer.clone())
}
