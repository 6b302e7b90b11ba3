//! The table of figures.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One row: what was measured, against what, and what is aimed at.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// As `sign/hsm/ml-dsa-65`.
    pub name: &'static str,
    /// The median of the subject.
    pub value: f64,
    /// Of `value` and `baseline`.
    pub unit: &'static str,
    /// The median of what it is held against.
    pub baseline: f64,
    /// The median of the rounds' ratios.
    pub ratio: f64,
    /// The least ratio that is good.
    pub goal: f64,
    /// What the subject and the baseline are.
    pub what: &'static str,
}

/// The rows so far.
pub struct Table {
    only: String,
    rows: Vec<Figure>,
}

impl Table {
    /// A table of the rows whose name holds `only`.
    pub fn new(only: String) -> Self {
        Self { only, rows: Vec::new() }
    }

    /// Whether a row is wanted.
    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    /// Adds a row and says it at once.
    pub fn add(&mut self, figure: Figure) {
        eprintln!("{}: {:.2} (aim {:.2})", figure.name, figure.ratio, figure.goal);
        self.rows.push(figure);
    }

    /// The table as Markdown.
    pub fn text(&self) -> String {
        let mut text = String::from("| figure | keyd | bare | ratio | aim | |\n|---|---|---|---|---|---|\n");
        for row in &self.rows {
            text.push_str(&format!(
                "| {} | {:.0} {} | {:.0} {} | {:.2} | {:.2} | {} |\n",
                row.name, row.value, row.unit, row.baseline, row.unit, row.ratio, row.goal, row.what
            ));
        }
        text
    }

    /// Writes `results.json`.
    pub fn save(&self, out: &Path) -> Result<()> {
        fs::create_dir_all(out).with_context(|| format!("{}", out.display()))?;
        fs::write(out.join("results.json"), serde_json::to_string_pretty(&self.rows)? + "\n")?;
        Ok(())
    }
}
