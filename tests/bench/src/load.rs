//! Load for a while, and two loads held against each other in turn.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::figure::{Figure, Goal};

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
    /// What is good.
    pub goal: Goal,
    /// What the subject and the baseline are.
    pub what: &'static str,
}

impl Rounds {
    /// Runs `baseline` and `subject` in turn; each gives one figure for the time it is given.
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
        let Row { name, unit, goal, what } = row;
        let (baseline, ratio) = (Some(median(bases)), Some(median(ratios)));
        Ok(Figure { name, value: median(values), unit, baseline, ratio, goal, what })
    }

    /// Runs `subject` as often, alone.
    pub async fn repeat<S>(self, row: Row, subject: impl Fn() -> S) -> Result<Figure>
    where
        S: Future<Output = Result<f64>>,
    {
        let mut values = Vec::new();
        for _ in 0..self.count {
            values.push(subject().await?);
        }
        let Row { name, unit, goal, what } = row;
        Ok(Figure { name, value: median(values), unit, baseline: None, ratio: None, goal, what })
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What many operations came to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Load {
    /// Operations a second.
    pub rate: f64,
    /// The median time of one, in µs.
    pub p50: f64,
}

/// Runs a thread for each client, calling `operation` until the time is over.
pub fn threads<C: Send + 'static>(
    clients: Vec<C>,
    time: Duration,
    operation: impl Fn(&mut C, u64) -> Result<()> + Send + Sync + 'static,
) -> Result<Load> {
    let operation = Arc::new(operation);
    let start = Instant::now();
    let running: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let operation = Arc::clone(&operation);
            thread::spawn(move || -> Result<Vec<f64>> {
                let mut times = Vec::new();
                while start.elapsed() < time {
                    let begin = Instant::now();
                    operation(&mut client, times.len() as u64)?;
                    times.push(micros(begin));
                }
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for thread in running {
        times.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
    }
    Ok(Load::over(start, times))
}

/// Runs `clients` threads, each a client process's worth: a runtime of its own and `in_flight` calls at once, made by
/// what `connect` gives.
pub async fn callers<C, F>(
    clients: usize,
    in_flight: usize,
    time: Duration,
    connect: impl Fn() -> C + Send + Sync + 'static,
    call: impl Fn(C, u64) -> F + Send + Sync + Copy + 'static,
) -> Result<Load>
where
    C: Clone + Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (connect, calls) = (Arc::new(connect), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let client = || {
        let (connect, calls) = (Arc::clone(&connect), Arc::clone(&calls));
        tokio::task::spawn_blocking(move || -> Result<Vec<f64>> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let connection = connect();
                let mut running = tokio::task::JoinSet::new();
                for _ in 0..in_flight {
                    let (connection, calls) = (connection.clone(), Arc::clone(&calls));
                    running.spawn(async move {
                        let mut times = Vec::new();
                        while start.elapsed() < time {
                            let begin = Instant::now();
                            call(connection.clone(), calls.fetch_add(1, Ordering::Relaxed)).await?;
                            times.push(micros(begin));
                        }
                        anyhow::Ok(times)
                    });
                }
                let mut times = Vec::new();
                while let Some(ended) = running.join_next().await {
                    times.extend(ended.context("a call broke off")??);
                }
                Ok(times)
            })
        })
    };
    let running: Vec<_> = (0..clients).map(|_| client()).collect();
    let mut times = Vec::new();
    for task in running {
        times.extend(task.await.context("a client broke off")??);
    }
    Ok(Load::over(start, times))
}

impl Load {
    fn over(start: Instant, times: Vec<f64>) -> Self {
        Self { rate: times.len() as f64 / start.elapsed().as_secs_f64(), p50: median(times) }
    }
}

fn micros(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e6
}
