//! Load for a while, and two loads held against each other in turn.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::time::Instant;

use crate::figure::Figure;

/// How often and how long.
#[derive(Clone, Copy)]
pub struct Rounds {
    /// Rounds of baseline and subject in turn.
    pub count: usize,
    /// Length of one half.
    pub each: Duration,
}

/// What a row is called and held against.
pub struct Row {
    /// As `sign/hsm/ml-dsa-65`.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// The least ratio that is good.
    pub goal: f64,
    /// What the subject and the baseline are.
    pub what: &'static str,
}

impl Rounds {
    /// Runs `baseline` and `subject` in turn; each gives operations a second for the time it is given.
    pub async fn compare<B, S>(
        self,
        row: Row,
        baseline: impl Fn(Duration) -> B,
        subject: impl Fn(Duration) -> S,
    ) -> Result<Figure>
    where
        B: Future<Output = Result<f64>>,
        S: Future<Output = Result<f64>>,
    {
        // What is made on first use (an opened key, a connection) is made now.
        let warm_up = self.each / 4;
        baseline(warm_up).await?;
        subject(warm_up).await?;
        let (mut bases, mut values, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.count {
            let (base, value) = (baseline(self.each).await?, subject(self.each).await?);
            ratios.push(value / base);
            bases.push(base);
            values.push(value);
        }
        Ok(Figure {
            name: row.name,
            value: median(values),
            unit: row.unit,
            baseline: median(bases),
            ratio: median(ratios),
            goal: row.goal,
            what: row.what,
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs `clients` threads, each with what `client` made for it, calling `operation` until the time is over. Gives
/// operations a second.
pub fn threads<C: Send + 'static>(
    clients: Vec<C>,
    time: Duration,
    operation: impl Fn(&mut C, u64) -> Result<()> + Send + Sync + 'static,
) -> Result<f64> {
    let operation = Arc::new(operation);
    let start = Instant::now();
    let running: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let operation = Arc::clone(&operation);
            thread::spawn(move || -> Result<u64> {
                let mut done = 0;
                while start.elapsed() < time {
                    operation(&mut client, done)?;
                    done += 1;
                }
                Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for thread in running {
        done += thread.join().map_err(|_| anyhow!("a client panicked"))??;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// Runs `clients` threads, each a client process's worth: a runtime of its own and `in_flight` calls at once, made by
/// what `connect` gives. Gives operations a second.
pub async fn callers<C, F>(
    clients: usize,
    in_flight: usize,
    time: Duration,
    connect: impl Fn() -> C + Send + Sync + 'static,
    call: impl Fn(C, u64) -> F + Send + Sync + Copy + 'static,
) -> Result<f64>
where
    C: Clone + Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (connect, done) = (Arc::new(connect), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let client = || {
        let (connect, done) = (Arc::clone(&connect), Arc::clone(&done));
        tokio::task::spawn_blocking(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let connection = connect();
                let mut calls = tokio::task::JoinSet::new();
                for _ in 0..in_flight {
                    let (connection, done) = (connection.clone(), Arc::clone(&done));
                    calls.spawn(async move {
                        while start.elapsed() < time {
                            call(connection.clone(), done.fetch_add(1, Ordering::Relaxed)).await?;
                        }
                        anyhow::Ok(())
                    });
                }
                while let Some(ended) = calls.join_next().await {
                    ended.context("a call broke off")??;
                }
                Ok(())
            })
        })
    };
    let running: Vec<_> = (0..clients).map(|_| client()).collect();
    for task in running {
        task.await.context("a client broke off")??;
    }
    Ok(done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}
