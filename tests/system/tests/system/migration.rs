//! Keys that move from one protection to another and stay the same keys.

use std::path::Path;

use keyd_api::{Client, KeyInfo};
use keyd_core::{Algorithm, Failure, KeyId, Protection, Reason, SignInput};
use peers::swtpm::Swtpm;
use peers::token::Token;
use system::keyd::{Keyd, namespaces, token_with_pin};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::broken_off::{KEYS, Told, again_and_again};

use Protection::{Hsm, HsmWrapped, Software, TpmSealed};

const ALL: &[Protection] = &[HsmWrapped, TpmSealed, Software];
const MESSAGE: SignInput<'_> = SignInput::Message(b"m");
/// Kills in the midst of migrations.
const KILLS: u64 = 16;

/// A keyd with a TPM, a token, and these namespaces.
async fn node(
    token: fn(&Path) -> std::io::Result<Token>,
    tables: &[(&str, &[Protection])],
) -> (TempDir, Swtpm, Keyd) {
    let dir = tempfile::tempdir().unwrap();
    let tpm = Swtpm::start(&dir.path().join("tpm")).unwrap();
    let token = token(dir.path()).unwrap();
    let config = token_with_pin(&token, dir.path()).unwrap()
        + &format!("[tpm]\ntcti = {:?}\n", tpm.tcti())
        + &namespaces(tables);
    let keyd = Keyd::start(dir.path(), &config).await.unwrap();
    (dir, tpm, keyd)
}

async fn signs(client: &Client, key: &KeyInfo) {
    let signed = client.sign(&key.key, MESSAGE).await.unwrap();
    key.public_key.verify(MESSAGE, &signed.signature).unwrap();
}

fn assert_same_but_protection(now: &KeyInfo, before: &KeyInfo) {
    assert_eq!(
        (&now.key, now.algorithm, now.version, now.created_at, &now.public_key),
        (&before.key, before.algorithm, before.version, before.created_at, &before.public_key)
    );
}

#[tokio::test]
async fn a_key_moves_through_every_protection_and_stays_the_same_key() {
    let (dir, _tpm, keyd) = node(Token::softhsm, &[("n", ALL)]).await;
    let client = keyd.client();
    let mut keys = Vec::new();
    for algorithm in [Algorithm::MlDsa65, Algorithm::MlDsa87, Algorithm::EcP256, Algorithm::EcP384] {
        let id: KeyId = format!("n/{algorithm}").parse().unwrap();
        client.create_key(&id, algorithm, Some(Software)).await.unwrap();
        let made = client.rotate_key(&id, None, None).await.unwrap();
        let before = client.sign(&id, MESSAGE).await.unwrap();
        let mut was = Software;
        for to in [TpmSealed, HsmWrapped, TpmSealed, Software, HsmWrapped] {
            let (now, told) = client.migrate_key(&id, to, to > was).await.unwrap();
            assert_eq!((now.protection, told), (to, was));
            assert_same_but_protection(&now, &made);
            signs(&client, &now).await;
            now.public_key.verify(MESSAGE, &before.signature).unwrap();
            was = to;
        }
        let (again, told) = client.migrate_key(&id, HsmWrapped, false).await.unwrap();
        assert_eq!((again.protection, told), (HsmWrapped, HsmWrapped), "there already");
        keys.push(made);
    }
    let sealed = &keys[0];
    client.migrate_key(&sealed.key, TpmSealed, true).await.unwrap();
    keyd.kill().await.unwrap();

    let keyd = Keyd::restart(dir.path()).await.unwrap();
    for key in &keys {
        let now = keyd.client().show_key(&key.key).await.unwrap();
        assert_eq!(now.protection, if key.key == sealed.key { TpmSealed } else { HsmWrapped });
        assert_same_but_protection(&now, key);
        signs(&keyd.client(), &now).await;
    }
}

#[tokio::test]
async fn the_command_says_what_was_done_and_what_may_be_left_on_the_disk() {
    let (_dir, _tpm, keyd) = node(Token::softhsm, &[("n", ALL)]).await;
    keyd.json(&["key", "create", "n/a", "--protection", "software"]).await.unwrap();
    let said = keyd.output(&["key", "migrate", "n/a", "--to", "tpm-sealed"]).await.unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("n/a was software and is tpm-sealed"), "{said}");
    assert!(said.contains("keyd key rotate n/a"), "{said}");
    let again = keyd.json(&["key", "migrate", "n/a", "--to", "tpm-sealed"]).await.unwrap();
    assert_eq!((&again["migrated"], &again["before"]), (&false.into(), &"tpm-sealed".into()), "{again}");
    let moved = keyd.json(&["key", "migrate", "n/a", "--to", "hsm-wrapped"]).await.unwrap();
    assert_eq!((&moved["migrated"], &moved["key"]["protection"]), (&true.into(), &"hsm-wrapped".into()));
}

#[tokio::test]
async fn what_cannot_move_is_said_with_the_way_out() {
    let (_dir, _tpm, keyd) =
        node(Token::kryoptic, &[("n", &[Hsm, HsmWrapped, TpmSealed]), ("soft", &[Software])]).await;
    let client = keyd.client();
    let (hard, sealed) = ("n/hard".parse().unwrap(), "n/sealed".parse().unwrap());
    let old = client.create_key(&hard, Algorithm::MlDsa65, Some(Hsm)).await.unwrap();
    let made = client.create_key(&sealed, Algorithm::MlDsa65, Some(TpmSealed)).await.unwrap();
    client.create_key(&"soft/a".parse().unwrap(), Algorithm::MlDsa44, None).await.unwrap();

    let words = "keyd key rotate n/hard --protection tpm-sealed";
    for (key, to, weaker, reason, words) in [
        (&hard, TpmSealed, true, Reason::ProtectionUnavailable, words),
        (&sealed, Hsm, false, Reason::ProtectionUnavailable, "keyd key rotate n/sealed --protection hsm"),
        (&sealed, Software, true, Reason::ProtectionUnavailable, "namespace n accepts"),
        (&sealed, Software, false, Reason::BadRequest, "--weaker"),
        (&"soft/a".parse().unwrap(), TpmSealed, false, Reason::ProtectionUnavailable, "accepts software"),
        (&"n/none".parse().unwrap(), TpmSealed, false, Reason::KeyNotFound, "n/none"),
    ] {
        let refused = client.migrate_key(key, to, weaker).await.unwrap_err();
        assert_eq!(refused.reason, reason, "{refused}");
        assert!(refused.message.contains(words), "{refused}");
    }
    assert_same_but_protection(&client.show_key(&sealed).await.unwrap(), &made);

    // The way out leads there.
    let new = client.rotate_key(&hard, None, Some(TpmSealed)).await.unwrap();
    assert_eq!((new.protection, new.version), (TpmSealed, 2));
    assert_ne!(new.public_key, old.public_key);
    let new = client.rotate_key(&sealed, None, Some(Hsm)).await.unwrap();
    assert_eq!((new.protection, new.version), (Hsm, 2));
    signs(&client, &new).await;
    assert_eq!(client.doctor().await.unwrap(), [], "nothing is left behind in the token");
}

#[tokio::test]
async fn keyd_killed_in_the_midst_leaves_the_key_in_one_place_or_the_other() {
    let (dir, _tpm, mut keyd) = node(Token::softhsm, &[("n", ALL)]).await;
    let id: KeyId = "n/a".parse().unwrap();
    let made = keyd.client().create_key(&id, Algorithm::MlDsa65, Some(TpmSealed)).await.unwrap();
    let started = Instant::now();
    keyd.client().migrate_key(&id, HsmWrapped, false).await.unwrap();
    keyd.client().migrate_key(&id, TpmSealed, true).await.unwrap();
    // As long as two take, and then as it goes: about every second kill is to meet one that is not acknowledged yet.
    let mut latest = started.elapsed();
    let (mut at, mut moved) = (TpmSealed, 0);
    for _ in 0..KILLS {
        let to = if at == TpmSealed { HsmWrapped } else { TpmSealed };
        let client = keyd.client();
        let asked = tokio::spawn({
            let id = id.clone();
            async move { client.migrate_key(&id, to, true).await }
        });
        sleep(latest.mul_f64(fastrand::f64())).await;
        keyd.kill().await.unwrap();
        let acknowledged = asked.await.unwrap().is_ok();
        latest = latest.mul_f64(if acknowledged { 0.7 } else { 1.4 });

        keyd = Keyd::restart(dir.path()).await.unwrap();
        let now = keyd.client().show_key(&id).await.unwrap();
        assert!(now.protection == to || (now.protection == at && !acknowledged), "{now:?}");
        assert_same_but_protection(&now, &made);
        signs(&keyd.client(), &now).await;
        moved += u64::from(now.protection == to);
        at = now.protection;
    }
    assert!((1..KILLS).contains(&moved), "{moved} of {KILLS} moved, with kills within {latest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_of_many_keys_that_is_broken_off_is_taken_up_again() {
    async fn migrate(keyd: Client, keys: Vec<KeyId>, to: Protection, told: Told) -> Result<(), Failure> {
        for key in keys {
            keyd.migrate_key(&key, to, true).await?;
            told.add(&key.to_string());
        }
        Ok(())
    }
    let (dir, _tpm, mut keyd) = node(Token::softhsm, &[("n", ALL)]).await;
    let mut made = Vec::new();
    for number in 0..KEYS {
        let id = format!("n/{number}").parse().unwrap();
        made.push(keyd.client().create_key(&id, Algorithm::MlDsa65, Some(TpmSealed)).await.unwrap());
    }
    let keys: Vec<_> = made.iter().map(|key| key.key.clone()).collect();
    let started = Instant::now();
    migrate(keyd.client(), keys.clone(), HsmWrapped, Told::default()).await.unwrap();
    let (takes, mut met, mut from) = (started.elapsed(), 0, HsmWrapped);
    for to in [TpmSealed, Software, HsmWrapped] {
        let change = |client: Client, told: Told| migrate(client, keys.clone(), to, told);
        let check = async |keyd: &Keyd, told: &Told| {
            for key in &made {
                let now = keyd.client().show_key(&key.key).await.unwrap();
                assert!(now.protection == to || (now.protection == from && !told.has(&key.key)), "{now:?}");
                assert_same_but_protection(&now, key);
                signs(&keyd.client(), &now).await;
            }
        };
        let (again, some) = again_and_again(dir.path(), keyd, takes, change, check).await;
        (keyd, met, from) = (again, met + some, to);
    }
    assert!(met > 0, "no kill met a migration under way");
    assert_eq!(keyd.client().doctor().await.unwrap(), []);
}
