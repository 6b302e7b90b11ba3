//! A CA below SPIRE's own, as a downstream entry gets one: what profiles and path lengths make of it.

use std::path::Path;
use std::time::SystemTime;

use forge::Forge;
use keyd_api::Client;
use keyd_core::{Algorithm, KeyId, Protection, PublicKey, SignInput};
use keyd_x509::{Certificate, Signer, parse_pem_chain, to_pem};
use peers::spire::{ServerConfig, SpireServer};
use system::issuance::profiles;
use system::keyd::{Keyd, namespaces};
use system::minter::Local;
use system::openssl::{openssl, verify_chain};
use system::spire::server_plugins;

const TRUST_DOMAIN: &str = "system.example";
const OWN_ID: &str = "spiffe://system.example";
const WORKLOAD: &str = "spiffe://system.example/field/web";

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_below_spires_certifies_leaves_and_no_further_ca() {
    let dir = tempfile::tempdir().unwrap();
    let soft = &[Protection::Software][..];
    let profiles = profiles(TRUST_DOMAIN)
        .replace("lifetime = \"30days\",", "lifetime = \"30days\", path_length = 1,")
        .replace("path_length = 0, ", "");
    let tables = namespaces(&[("spire-server", soft), ("spire-root", soft)]);
    let keyd = Keyd::start(dir.path(), &(tables + &profiles)).await.unwrap();
    let root = dir.path().join("root.pem");
    let out = root.to_str().unwrap();
    keyd.json(&["ca", "init", "--trust-domain", TRUST_DOMAIN, "--out", out]).await.unwrap();

    // The root signs no CA without a path length, or with a longer one.
    let plugins = server_plugins(&keyd.socket(), &root).unwrap();
    let with = |length| plugins.replace("root_key = ", &format!("path_length = {length}\n      root_key = "));
    for (number, plugins) in [plugins.clone(), with(2)].into_iter().enumerate() {
        let spire = ServerConfig::hcl(TRUST_DOMAIN, plugins).unwrap();
        let refused = SpireServer::start(&dir.path().join(format!("refused{number}")), &spire).await;
        let Err(refused) = refused else { panic!("the root signed {number}") };
        assert!(format!("{refused:?}").contains("rule ca.path_length"), "{refused:?}");
    }
    let spire = ServerConfig::hcl(TRUST_DOMAIN, with(1)).unwrap();
    let server = SpireServer::start(&dir.path().join("spire"), &spire).await.unwrap();
    let minted = server.mint(WORKLOAD).await.unwrap();
    verify_chain(&minted.svid, &minted.bundle).await.unwrap();
    let chain = parse_pem_chain("svid", &std::fs::read(&minted.svid).unwrap()).unwrap();
    let [_, spires] = &chain[..] else { panic!("{chain:?}") };

    // SPIRE's key signs what a downstream entry asks for, and that one signs on by itself.
    let client = keyd.client();
    let spires_key = spires.public_key().unwrap();
    let (below, further, web) = (new_key(), new_key(), new_key());
    let now = SystemTime::now();
    let below_tbs = Forge {
        issuer: spires.subject().to_string(),
        ..Forge::ca(&spires_key, below.public_key(), OWN_ID, None, now)
    };
    let slot = slot_of(&client, &spires_key).await;
    let signed = client.sign(&slot, SignInput::Message(&below_tbs.tbs())).await.unwrap();
    let below_ca = certificate(&below_tbs, &signed.signature);
    let issued = async |issuer: &Local, forge: Forge| {
        let signature = issuer.sign(&forge.tbs()).await.unwrap();
        certificate(&forge, &signature)
    };
    let leaf_below = Forge {
        issuer: below_tbs.subject.clone(),
        ..Forge::leaf(below.public_key(), web.public_key(), WORKLOAD, now)
    };
    let leaf = issued(&below, leaf_below).await;
    assert_eq!(verified(&leaf, &[&below_ca, spires], &root).await, Ok(()));

    let further_tbs = Forge {
        issuer: below_tbs.subject.clone(),
        subject: "CN=further,O=SPIFFE".to_owned(),
        ..Forge::ca(below.public_key(), further.public_key(), OWN_ID, None, now)
    };
    let leaf_of_further = Forge {
        issuer: further_tbs.subject.clone(),
        ..Forge::leaf(further.public_key(), web.public_key(), WORKLOAD, now)
    };
    let further_ca = issued(&below, further_tbs).await;
    let leaf = issued(&further, leaf_of_further).await;
    let refused = verified(&leaf, &[&further_ca, &below_ca, spires], &root).await.unwrap_err();
    assert!(refused.contains("path length constraint exceeded"), "{refused}");

    let certified = keyd.json(&["audit", "certificates"]).await.unwrap();
    let certified = certified["certificates"].as_array().unwrap();
    let fingerprint = below.public_key().fingerprint().map(|byte| format!("{byte:02x}")).concat();
    assert!(certified.iter().any(|c| c["ca"] == true && c["spki_sha256"] == fingerprint.as_str()));
    server.stop().await.unwrap();
    keyd.stop().await.unwrap();
}

fn new_key() -> Local {
    Local::generate(Algorithm::MlDsa65).unwrap()
}

/// Which of SPIRE's two CA keys this is.
async fn slot_of(keyd: &Client, key: &PublicKey) -> KeyId {
    let keys = keyd.list_keys(None).await.unwrap();
    keys.into_iter().find(|info| info.public_key == *key).unwrap().key
}

fn certificate(forge: &Forge, signature: &[u8]) -> Certificate {
    Certificate::from_der(&forge.signed(signature)).unwrap()
}

/// What OpenSSL says of a chain.
async fn verified(leaf: &Certificate, above: &[&Certificate], root: &Path) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let (leaf_file, above_file) = (dir.path().join("leaf"), dir.path().join("above"));
    std::fs::write(&leaf_file, to_pem([leaf]).unwrap()).unwrap();
    std::fs::write(&above_file, to_pem(above.iter().copied()).unwrap()).unwrap();
    let mut verify = openssl();
    verify.args(["verify", "-CAfile"]).arg(root).arg("-untrusted").arg(&above_file).arg(&leaf_file);
    let output = verify.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}
