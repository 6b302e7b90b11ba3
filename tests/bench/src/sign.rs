//! Signatures through keyd against the bare part that makes them.

use anyhow::Result;
use keyd_api::Client;
use keyd_core::{Algorithm, KeyId, SignInput};
use keyd_softkey::SoftKey;

use crate::bare::Bare;
use crate::figure::{Figure, Table};
use crate::load::{Rounds, Row, callers, threads};
use crate::node::Node;

/// Clients at once: as many as the reference machine has cores.
pub const CLIENTS: usize = 2;
/// Length of a message in bytes, about that of a certificate to be signed.
const MESSAGE: usize = 2048;

/// The rows about signing.
pub async fn rows(node: &Node, rounds: Rounds, table: &mut Table) -> Result<()> {
    if table.wants("sign/hsm/ml-dsa-65") {
        table.add(hsm(node, rounds).await?);
    }
    if table.wants("sign/tpm-sealed/ml-dsa-65") {
        table.add(sealed(node, rounds).await?);
    }
    Ok(())
}

async fn hsm(node: &Node, rounds: Rounds) -> Result<Figure> {
    let key: KeyId = "hsm/sign".parse()?;
    let client = node.keyd.client();
    client.create_key(&key, Algorithm::MlDsa65, None).await?;
    let bare = Bare::prepare(&node.dir.path().join("bare"))?;
    let row = Row {
        name: "sign/hsm/ml-dsa-65",
        unit: "1/s",
        goal: 0.88,
        what: "through keyd, each verified / bare cryptoki on kryoptic; 2 clients",
    };
    let socket = node.keyd.socket();
    rounds
        .compare(
            row,
            |time| bare.rate(time),
            |time| {
                let (socket, key) = (socket.clone(), key.clone());
                callers(CLIENTS, 1, time, move || (Client::new(&socket), key.clone()), sign)
            },
        )
        .await
}

async fn sealed(node: &Node, rounds: Rounds) -> Result<Figure> {
    let key: KeyId = "sealed/sign".parse()?;
    node.keyd.client().create_key(&key, Algorithm::MlDsa65, None).await?;
    let row = Row {
        name: "sign/tpm-sealed/ml-dsa-65",
        unit: "1/s",
        goal: 0.70,
        what: "through keyd / aws-lc-rs in process; 2 clients, 8 calls in flight each",
    };
    let socket = node.keyd.socket();
    rounds
        .compare(
            row,
            |time| async move {
                let secret = SoftKey::generate_secret(Algorithm::MlDsa65)?;
                let keys = (0..CLIENTS)
                    .map(|_| SoftKey::from_secret(Algorithm::MlDsa65, &secret))
                    .collect::<Result<Vec<_>, _>>()?;
                tokio::task::spawn_blocking(move || {
                    threads(keys, time, |key, n| {
                        key.sign(SignInput::Message(&message(n)))?;
                        Ok(())
                    })
                })
                .await?
            },
            |time| {
                let (socket, key) = (socket.clone(), key.clone());
                callers(CLIENTS, 8, time, move || (Client::new(&socket), key.clone()), sign)
            },
        )
        .await
}

async fn sign((client, key): (Client, KeyId), n: u64) -> Result<()> {
    client.sign(&key, SignInput::Message(&message(n))).await?;
    Ok(())
}

/// A message of its own for each signature: how long ML-DSA takes depends on it.
pub fn message(n: u64) -> Vec<u8> {
    let mut message = vec![0x5a; MESSAGE];
    if let Some(head) = message.first_chunk_mut() {
        *head = n.to_be_bytes();
    }
    message
}
