//! What the demo says and leaves: a line a step, and `result.json`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::Instant;

/// The steps so far.
pub struct Report {
    out: PathBuf,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    name: &'static str,
    ok: bool,
    seconds: f64,
    detail: String,
}

impl Report {
    /// Begins in an empty `out`.
    pub fn new(out: &Path) -> Result<Self> {
        if out.exists() {
            fs::remove_dir_all(out).with_context(|| format!("{}", out.display()))?;
        }
        fs::create_dir_all(out).with_context(|| format!("{}", out.display()))?;
        Ok(Self { out: out.canonicalize()?, steps: Vec::new() })
    }

    /// The directory for what the demo leaves.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Plays one step, which gives the words that prove it.
    pub async fn step(
        &mut self,
        name: &'static str,
        step: impl Future<Output = Result<String>>,
    ) -> Result<()> {
        let start = Instant::now();
        let result = step.await;
        let seconds = start.elapsed().as_secs_f64();
        let (ok, detail) = match &result {
            Ok(detail) => (true, detail.clone()),
            Err(error) => (false, format!("{error:#}")),
        };
        println!("{} {name} ({seconds:.1} s): {detail}", if ok { "ok  " } else { "FAIL" });
        self.steps.push(Step { name, ok, seconds, detail });
        result.map(drop).with_context(|| format!("step {name:?} does not hold"))
    }

    /// Writes `result.json` and says how it ended.
    pub fn finish(self, played: Result<()>) -> ExitCode {
        // Somebody may have looked around for an hour since.
        let seconds: f64 = self.steps.iter().map(|step| step.seconds).sum();
        let ok = played.is_ok();
        let result = serde_json::json!({ "ok": ok, "seconds": seconds, "steps": self.steps });
        let file = self.out.join("result.json");
        if let Err(error) = fs::write(&file, format!("{result:#}\n")) {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
        match played {
            Ok(()) => {
                println!(
                    "\nThe line holds: {} steps in {seconds:.1} s; see {}",
                    self.steps.len(),
                    self.out.display()
                );
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("\nThe demo stops: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}
