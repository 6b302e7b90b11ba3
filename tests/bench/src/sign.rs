//! Keys made and used through keyd against the bare part that does it.

use std::time::Duration;

use anyhow::Result;
use keyd_api::Client;
use keyd_core::{Algorithm, KeyId, SignInput};
use keyd_softkey::SoftKey;

use crate::bare::{Bare, Measure};
use crate::figure::{Goal, Table};
use crate::load::{Load, Rounds, Row, callers, threads};
use crate::node::Node;

/// Clients at once in most rows: as many as the reference machine has cores.
const CLIENTS: usize = 2;
/// Length of a message in bytes, about that of a certificate to be signed.
const MESSAGE: usize = 2048;

/// The rows about signing and making keys.
pub async fn rows(node: &Node, rounds: Rounds, table: &mut Table) -> Result<()> {
    hsm(node, rounds, table).await?;
    sealed(node, rounds, table).await
}

async fn hsm(node: &Node, rounds: Rounds, table: &mut Table) -> Result<()> {
    let key: KeyId = "hsm/sign".parse()?;
    node.keyd.client().create_key(&key, Algorithm::MlDsa65, None).await?;
    let bare = Bare::prepare(&node.dir.path().join("bare"))?;
    let socket = node.keyd.socket();
    let through_keyd = |clients: usize, time: Duration| {
        let (socket, key) = (socket.clone(), key.clone());
        callers(clients, 1, time, move || (Client::new(&socket), key.clone()), sign)
    };

    let throughput = [
        ("sign/hsm/ml-dsa-65", CLIENTS, Goal::RatioAtLeast(0.88), "2 clients"),
        ("sign/hsm/ml-dsa-65/1-client", 1, Goal::None, "1 client"),
        ("sign/hsm/ml-dsa-65/8-clients", 8, Goal::None, "8 clients"),
    ];
    for (name, clients, goal, what) in throughput {
        if table.wants(name) {
            let row = Row { name, unit: "1/s", goal, what };
            let baseline = |time| rate(bare.measure(Measure::Sign, clients, time));
            table.add(rounds.compare(row, baseline, |time| rate(through_keyd(clients, time))).await?);
        }
    }
    let row = Row {
        name: "sign/hsm/ml-dsa-65/p50",
        unit: "µs",
        goal: Goal::AboveBaselineAtMost(200.0),
        what: "median time of one signature; 1 client",
    };
    if table.wants(row.name) {
        let baseline = |time| p50(bare.measure(Measure::Sign, 1, time));
        table.add(rounds.compare(row, baseline, |time| p50(through_keyd(1, time))).await?);
    }
    let row = Row {
        name: "create/hsm/ml-dsa-65",
        unit: "1/s",
        goal: Goal::None,
        what: "made, recorded and deleted / made and destroyed; 1 client",
    };
    if table.wants(row.name) {
        let baseline = |time| rate(bare.measure(Measure::Create, 1, time));
        let subject = |time| {
            let socket = socket.clone();
            rate(callers(1, 1, time, move || (Client::new(&socket), "hsm"), create))
        };
        table.add(rounds.compare(row, baseline, subject).await?);
    }
    Ok(())
}

async fn sealed(node: &Node, rounds: Rounds, table: &mut Table) -> Result<()> {
    let key: KeyId = "sealed/sign".parse()?;
    node.keyd.client().create_key(&key, Algorithm::MlDsa65, None).await?;
    let socket = node.keyd.socket();
    let row = Row {
        name: "sign/tpm-sealed/ml-dsa-65",
        unit: "1/s",
        goal: Goal::RatioAtLeast(0.70),
        what: "through keyd / aws-lc-rs in process; 2 clients, 8 calls in flight each",
    };
    if table.wants(row.name) {
        let subject = |time| {
            let (socket, key) = (socket.clone(), key.clone());
            rate(callers(CLIENTS, 8, time, move || (Client::new(&socket), key.clone()), sign))
        };
        table.add(rounds.compare(row, |time| rate(in_process(time)), subject).await?);
    }
    let row = Row {
        name: "create/tpm-sealed/ml-dsa-65",
        unit: "1/s",
        goal: Goal::None,
        what: "made, sealed, recorded and deleted; 1 client",
    };
    if table.wants(row.name) {
        let subject = || {
            let socket = socket.clone();
            rate(callers(1, 1, rounds.each, move || (Client::new(&socket), "sealed"), create))
        };
        table.add(rounds.repeat(row, subject).await?);
    }
    Ok(())
}

/// Signatures by aws-lc-rs in this process.
async fn in_process(time: Duration) -> Result<Load> {
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
}

async fn rate(load: impl Future<Output = Result<Load>>) -> Result<f64> {
    Ok(load.await?.rate)
}

async fn p50(load: impl Future<Output = Result<Load>>) -> Result<f64> {
    Ok(load.await?.p50)
}

/// Signs once.
pub async fn sign((client, key): (Client, KeyId), n: u64) -> Result<()> {
    client.sign(&key, SignInput::Message(&message(n))).await?;
    Ok(())
}

async fn create((client, namespace): (Client, &'static str), n: u64) -> Result<()> {
    let key: KeyId = format!("{namespace}/made-{n}").parse()?;
    client.create_key(&key, Algorithm::MlDsa65, None).await?;
    Ok(client.delete_key(&key).await?)
}

/// A message of its own for each signature: how long ML-DSA takes depends on it.
pub fn message(n: u64) -> Vec<u8> {
    let mut message = vec![0x5a; MESSAGE];
    if let Some(head) = message.first_chunk_mut() {
        *head = n.to_be_bytes();
    }
    message
}
