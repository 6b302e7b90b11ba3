//! Every algorithm through the command line, and the profile that leaves some out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use keyd_core::{Algorithm, Hash, Protection, PublicKey, Reason, RsaPadding, SignInput};
use peers::token::Token;
use serde_json::Value;
use system::keyd::{Keyd, configure, namespaces, token_with_pin};

async fn software(dir: &Path) -> Keyd {
    Keyd::start(dir, &namespaces(&[("n", &[Protection::Software])])).await.unwrap()
}

/// The exit code, and the reason where it failed.
async fn outcome(keyd: &Keyd, args: &[&str]) -> (i32, Option<String>) {
    let output = keyd.output(&[&["--json"], args].concat()).await.unwrap();
    let error: Option<Value> = serde_json::from_slice(&output.stderr).ok();
    let reason = error.and_then(|e| e["error"]["reason"].as_str().map(str::to_owned));
    (output.status.code().unwrap(), reason)
}

#[tokio::test]
async fn what_is_signed_on_the_command_line_verifies_there_with_the_same_options_alone() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = software(dir.path()).await;
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (message, digest, other, signature) = (at("message"), at("digest"), at("other"), at("signature"));
    fs::write(&message, b"message").unwrap();
    fs::write(&other, b"massage").unwrap();
    fs::write(&digest, Hash::Sha512.digest(b"message")).unwrap();
    let none: &[&str] = &[];
    for (algorithm, how, same, wrong) in [
        ("ml-dsa-44", none, none, none),
        ("ml-dsa-65", none, none, none),
        ("ml-dsa-87", none, none, none),
        ("ec-p256", none, &["--hash", "sha256"][..], &["--hash", "sha384"][..]),
        ("ec-p384", &["--hash", "sha512"], &["--hash", "sha512"], none),
        (
            "rsa-2048",
            &["--padding", "pss"],
            &["--padding", "pss", "--hash", "sha256"],
            &["--padding", "pkcs1v15"],
        ),
        ("rsa-3072", &["--padding", "pkcs1v15"], &["--padding", "pkcs1v15"], &["--padding", "pss"]),
    ] {
        let key = &format!("n/{algorithm}");
        keyd.json(&["key", "create", key, "--algorithm", algorithm]).await.unwrap();
        let sign = ["key", "sign", key, "--in", &message, "--out", &signature];
        keyd.json(&[&sign, how].concat()).await.unwrap();
        let verify = |file, how| {
            let args = ["key", "verify", key, "--in", file, "--signature", &signature];
            [&args[..], how].concat()
        };
        let verified = keyd.json(&verify(&message, same)).await.unwrap();
        assert_eq!((&verified["verified"], &verified["key"]), (&true.into(), &key.as_str().into()));
        let bad = (1, Some(Reason::Integrity.name().to_owned()));
        assert_eq!(outcome(&keyd, &verify(&other, same)).await, bad, "{algorithm}");
        if wrong.len() != same.len() || wrong != same {
            assert_eq!(outcome(&keyd, &verify(&message, wrong)).await, bad, "{algorithm}");
        }
    }
    // A digest that was made elsewhere.
    let prehashed = ["--prehashed", "--hash", "sha512"];
    let sign = ["key", "sign", "n/ec-p384", "--in", &digest, "--out", &signature];
    keyd.json(&[&sign[..], &prehashed].concat()).await.unwrap();
    let verify = ["key", "verify", "n/ec-p384", "--in", &message, "--signature", &signature];
    keyd.json(&[&verify[..], &["--hash", "sha512"]].concat()).await.unwrap();

    let misuse = (1, Some(Reason::BadRequest.name().to_owned()));
    let no_padding = ["key", "sign", "n/rsa-2048", "--in", &message, "--out", &signature];
    assert_eq!(outcome(&keyd, &no_padding).await, misuse);
    let padded =
        ["key", "verify", "n/ml-dsa-65", "--in", &message, "--signature", &signature, "--padding", "pss"];
    assert_eq!(outcome(&keyd, &padded).await, misuse, "options that no ML-DSA key has are no bad signature");
    keyd.stop().await.unwrap();
}

#[tokio::test]
async fn a_shared_secret_is_recovered_into_a_file_that_nobody_else_reads() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::kryoptic(dir.path()).unwrap();
    let config = token_with_pin(&token, dir.path()).unwrap()
        + &namespaces(&[("hsm", &[Protection::Hsm]), ("soft", &[Protection::Software])]);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (ciphertext, out, spki) = (at("ciphertext"), at("secret"), at("spki"));
    for key in ["hsm/ml-kem-768", "hsm/ml-kem-1024", "soft/ml-kem-768", "soft/ml-kem-1024"] {
        let (_, algorithm) = key.split_once('/').unwrap();
        keyd.json(&["key", "create", key, "--algorithm", algorithm]).await.unwrap();
        keyd.output(&["key", "public", key, "--format", "der", "--out", &spki]).await.unwrap();
        let public = PublicKey::from_spki(&fs::read(&spki).unwrap()).unwrap();
        let (sent, secret) = public.encapsulate().unwrap();
        fs::write(&ciphertext, &sent).unwrap();
        // A file that is there already, and that others may read, is made private too.
        fs::write(&out, b"something longer than a shared secret of 32 bytes").unwrap();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o644)).unwrap();
        let decapsulate = ["key", "decapsulate", key, "--in", &ciphertext, "--out", &out];
        let done = keyd.json(&decapsulate).await.unwrap();
        assert_eq!(done["shared_secret_bytes"], 32);
        assert_eq!(fs::read(&out).unwrap(), secret.expose(), "{key}");
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);

        fs::write(&ciphertext, &sent[1..]).unwrap();
        let refused = (1, Some(Reason::BadRequest.name().to_owned()));
        assert_eq!(outcome(&keyd, &decapsulate).await, refused);
        assert_eq!(outcome(&keyd, &["key", "sign", key, "--in", &out, "--out", "-"]).await, refused);
    }
    keyd.stop().await.unwrap();
}

#[tokio::test]
async fn every_key_is_there_and_works_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let keyd = software(dir.path()).await;
    for algorithm in Algorithm::ALL {
        keyd.client().create_key(&format!("n/{algorithm}").parse().unwrap(), algorithm, None).await.unwrap();
    }
    keyd.kill().await.unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let client = keyd.client();
    let digest = &Hash::Sha256.digest(b"m")[..];
    for info in client.list_keys(None).await.unwrap() {
        if info.algorithm.decapsulates() {
            let (ciphertext, secret) = info.public_key.encapsulate().unwrap();
            let opened = client.decapsulate(&info.key, &ciphertext).await.unwrap();
            assert_eq!(opened.shared_secret.expose(), secret.expose());
            continue;
        }
        let input = match info.algorithm.signs_messages() {
            true => SignInput::Message(b"m"),
            false => SignInput::RsaDigest { padding: RsaPadding::Pss, hash: Hash::Sha256, digest },
        };
        let signed = client.sign(&info.key, input).await.unwrap();
        info.public_key.verify(input, &signed.signature).unwrap();
    }
    keyd.stop().await.unwrap();
}

#[tokio::test]
async fn the_profile_cnsa2_uses_two_algorithms_and_says_what_it_leaves_out() {
    let dir = tempfile::tempdir().unwrap();
    let before = software(dir.path()).await;
    for algorithm in ["ml-dsa-65", "ml-dsa-87", "ml-kem-768", "ml-kem-1024"] {
        let key = &format!("n/{algorithm}");
        before.json(&["key", "create", key, "--algorithm", algorithm]).await.unwrap();
    }
    assert_eq!(before.json(&["status"]).await.unwrap()["profile"], Value::Null);
    before.stop().await.unwrap();

    let rest = namespaces(&[("n", &[Protection::Software])]);
    configure(dir.path(), &format!("profile = \"cnsa2\"\n{rest}")).unwrap();
    let keyd = Keyd::restart(dir.path()).await.unwrap();
    let client = keyd.client();
    let id = |name: &str| format!("n/{name}").parse().unwrap();
    let forbidden = |failure: keyd_core::Failure| {
        assert_eq!(failure.reason, Reason::ProfileForbids, "{failure}");
        for words in ["cnsa2", "ml-dsa-87 and ml-kem-1024 alone"] {
            assert!(failure.message.contains(words), "{failure}");
        }
    };
    for algorithm in Algorithm::ALL {
        let made = client.create_key(&id(&format!("new-{algorithm}")), algorithm, None).await;
        match algorithm {
            Algorithm::MlDsa87 | Algorithm::MlKem1024 => drop(made.unwrap()),
            _ => forbidden(made.unwrap_err()),
        }
    }
    forbidden(client.sign(&id("ml-dsa-65"), SignInput::Message(b"m")).await.unwrap_err());
    forbidden(client.decapsulate(&id("ml-kem-768"), &[7; 1088]).await.unwrap_err());
    forbidden(client.rotate_key(&id("ml-dsa-65"), None, None).await.unwrap_err());
    forbidden(client.rotate_key(&id("ml-dsa-87"), Some(Algorithm::EcP256), None).await.unwrap_err());
    for weaker in [true, false] {
        forbidden(client.migrate_key(&id("ml-dsa-65"), Protection::Software, weaker).await.unwrap_err());
        forbidden(client.migrate_key(&id("ml-kem-768"), Protection::TpmSealed, weaker).await.unwrap_err());
        client.migrate_key(&id("ml-dsa-87"), Protection::Software, weaker).await.unwrap();
    }
    client.sign(&id("ml-dsa-87"), SignInput::Message(b"m")).await.unwrap();
    client.decapsulate(&id("ml-kem-1024"), &[7; 1568]).await.unwrap();

    let status = keyd.json(&["status"]).await.unwrap();
    assert_eq!((&status["profile"], &status["keys_outside_profile"]), (&"cnsa2".into(), &2.into()));
    let human = String::from_utf8(keyd.output(&["status"]).await.unwrap().stdout).unwrap();
    assert!(human.contains("profile cnsa2") && human.contains("refuses 2 of the keys"), "{human}");
    let doctor = String::from_utf8(keyd.output(&["doctor"]).await.unwrap().stdout).unwrap();
    assert!(doctor.contains("n/ml-dsa-65 (ml-dsa-65), n/ml-kem-768 (ml-kem-768)"), "{doctor}");

    // What doctor says to do, does it.
    client.rotate_key(&id("ml-dsa-65"), Some(Algorithm::MlDsa87), None).await.unwrap();
    client.delete_key(&id("ml-kem-768")).await.unwrap();
    assert_eq!(keyd.json(&["status"]).await.unwrap()["keys_outside_profile"], 0);
    assert!(keyd.output(&["doctor"]).await.unwrap().status.success());
    keyd.stop().await.unwrap();
}

#[tokio::test]
async fn rsa_is_refused_where_it_is_too_long_for_the_device_and_made_in_the_token_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::softhsm(dir.path()).unwrap();
    let all = [Protection::Software, Protection::TpmSealed, Protection::HsmWrapped];
    let tables =
        [("tpm", &[Protection::TpmSealed][..]), ("wrapped", &[Protection::HsmWrapped]), ("soft", &all)];
    // Nothing is asked of the TPM.
    let tpm = "tpm.tcti = \"device:/nonexistent\"\ntpm.counter = false\n".to_owned();
    let config = tpm + &token_with_pin(&token, dir.path()).unwrap() + &namespaces(&tables);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    let client = keyd.client();
    let refused = (1, Some(Reason::ProtectionUnavailable.name().to_owned()));

    let sealed = client.create_key(&"tpm/a".parse().unwrap(), Algorithm::Rsa2048, None).await.unwrap_err();
    assert_eq!(sealed.reason, Reason::ProtectionUnavailable);
    for words in ["too long to be tpm-sealed", "in a token (hsm)", "ec-p256 or ml-dsa-65"] {
        assert!(sealed.message.contains(words), "{sealed}");
    }
    let made = client.create_key(&"wrapped/a".parse().unwrap(), Algorithm::Rsa2048, None).await.unwrap();
    assert_eq!(made.protection, Protection::Hsm, "the token makes it, and it never leaves");

    client.create_key(&"soft/a".parse().unwrap(), Algorithm::Rsa2048, None).await.unwrap();
    for to in ["tpm-sealed", "hsm-wrapped"] {
        let migrate = ["key", "migrate", "soft/a", "--to", to];
        assert_eq!(outcome(&keyd, &migrate).await, refused);
        let said = keyd.output(&migrate).await.unwrap();
        let said = String::from_utf8_lossy(&said.stderr);
        assert!(
            said.contains(&format!("too long to be {to}")) && said.contains("in a token (hsm)"),
            "{said}"
        );
    }
    assert_eq!(client.show_key(&"soft/a".parse().unwrap()).await.unwrap().protection, Protection::Software);
    keyd.stop().await.unwrap();
}
