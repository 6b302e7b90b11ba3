//! Certificate chains as the server issues them: taken only where others will take them too.

use std::time::SystemTime;

use keyd_core::PublicKey;
use keyd_tls::{Bundles, Profile, Refusal};
use keyd_x509::{Certificate, SpiffeId};

use crate::svid::lifetime::{Lifetime, chance};

/// Reads a chain that was issued to `id` for `key`, DER, leaf first.
///
/// # Errors
/// What is wrong with it.
pub fn read_chain(
    chain: &[Vec<u8>],
    key: &PublicKey,
    id: &SpiffeId,
    bundles: &Bundles,
    now: SystemTime,
) -> Result<(Vec<Certificate>, Lifetime), String> {
    let chain = chain.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| e.to_string())?;
    let leaf = chain.first().ok_or("the chain is empty")?;
    if leaf.public_key().map_err(|e| e.to_string())? != *key {
        return Err("the leaf is for another key".to_owned());
    }
    let lifetime = match Lifetime::of(&chain, chance()) {
        Some(lifetime) if !lifetime.ended(now) => lifetime,
        _ => return Err("it has ended already; do the clocks of server and node agree?".to_owned()),
    };
    if verify(&chain, bundles, now).map_err(|refusal| refusal.to_string())? != *id {
        return Err(format!("the leaf is not one of {id}"));
    }
    Ok((chain, lifetime))
}

/// Verifies a chain, leaf first; gives its SPIFFE ID.
///
/// # Errors
/// The rule that it breaks.
pub fn verify(chain: &[Certificate], bundles: &Bundles, now: SystemTime) -> Result<SpiffeId, Refusal> {
    // To a node whose clock is behind, what the server issues begins in the future.
    let begins = chain.iter().map(Certificate::not_before).max();
    bundles.verify(chain, Profile::SpireServer, begins.map_or(now, |begins| begins.max(now)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use keyd_x509::parse_pem_chain;
    use peers::openssl::{Issued, Subject, issue};

    use super::*;

    const WEB: &str = "spiffe://td/web";
    const HOUR: Duration = Duration::from_secs(3600);

    fn certificate(issued: &Issued) -> Certificate {
        parse_pem_chain("issued", &std::fs::read(&issued.certificate).unwrap()).unwrap().remove(0)
    }

    fn ca(dir: &Path, name: &str, issuer: Option<&Issued>) -> Issued {
        issue(dir, &Subject::ca(name, "td"), issuer).unwrap()
    }

    fn leaf(dir: &Path, name: &str, issuer: &Issued) -> Certificate {
        certificate(&issue(dir, &Subject::leaf(name, WEB), Some(issuer)).unwrap())
    }

    fn read(
        chain: &[&Certificate],
        key: &Certificate,
        id: &str,
        root: &Issued,
        now: SystemTime,
    ) -> Result<usize, String> {
        let mut bundles = Bundles::default();
        bundles.set("td".parse().unwrap(), &[certificate(root)]).unwrap();
        let ders: Vec<_> = chain.iter().map(|c| c.der().to_vec()).collect();
        read_chain(&ders, &key.public_key().unwrap(), &id.parse().unwrap(), &bundles, now)
            .map(|(chain, _)| chain.len())
    }

    #[test]
    fn a_chain_that_ends_in_the_bundle_is_taken_also_where_the_clock_is_behind() {
        let dir = tempfile::tempdir().unwrap();
        let root = ca(dir.path(), "root", None);
        let below = ca(dir.path(), "below", Some(&root));
        let leaf = leaf(dir.path(), "leaf", &below);
        for now in [SystemTime::now(), leaf.not_before() - HOUR] {
            assert_eq!(read(&[&leaf, &certificate(&below)], &leaf, WEB, &root, now), Ok(2));
        }
    }

    #[test]
    fn a_chain_that_nobody_would_take_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = ca(dir.path(), "root", None);
        // The same name, another key.
        std::fs::create_dir(dir.path().join("forged")).unwrap();
        let forged = ca(&dir.path().join("forged"), "root", None);
        let (good, bad) = (leaf(dir.path(), "good", &root), leaf(dir.path(), "bad", &forged));
        let (forged, now) = (certificate(&forged), SystemTime::now());
        let refused = |chain: &[&Certificate], key, id, now| read(chain, key, id, &root, now).unwrap_err();

        assert_eq!(read(&[&good], &good, WEB, &root, now), Ok(1));
        for chain in [&[&bad][..], &[&bad, &forged], &[&bad, &good]] {
            let said = refused(chain, &bad, WEB, now);
            assert!(said.starts_with("spiffe://td/web is refused: its chain does not"), "{said}");
        }
        assert!(refused(&[&good], &bad, WEB, now).contains("another key"));
        assert!(refused(&[&good], &good, "spiffe://td/db", now).contains("not one of spiffe://td/db"));
        assert!(refused(&[&good], &good, WEB, good.not_after()).contains("clocks"));
        assert!(refused(&[], &good, WEB, now).contains("empty"));
    }
}
