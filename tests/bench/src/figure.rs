//! The table of figures.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::plot;

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
    pub baseline: Option<f64>,
    /// The median of the rounds' ratios.
    pub ratio: Option<f64>,
    /// What is good.
    #[serde(flatten)]
    pub goal: Goal,
    /// What the subject and the baseline are.
    pub what: &'static str,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "goal_is", content = "goal", rename_all = "kebab-case")]
pub enum Goal {
    /// A ratio of no less.
    RatioAtLeast(f64),
    /// A value of no more.
    ValueAtMost(f64),
    /// A value no more than this above the baseline.
    AboveBaselineAtMost(f64),
    /// Only to be watched.
    None,
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
        eprintln!("{}", figure.line());
        self.rows.push(figure);
    }

    /// The table as Markdown.
    pub fn text(&self) -> String {
        let head = "| figure | keyd | bare | ratio | aim | |\n|---|---|---|---|---|---|\n";
        self.rows.iter().fold(head.to_owned(), |text, row| text + &row.line() + "\n")
    }

    /// Writes `results.json` and `ratios.svg`.
    pub fn save(&self, out: &Path) -> Result<()> {
        fs::create_dir_all(out).with_context(|| format!("{}", out.display()))?;
        fs::write(out.join("results.json"), serde_json::to_string_pretty(&self.rows)? + "\n")?;
        plot::ratios(&self.rows, &out.join("ratios.svg"))
    }
}

impl Figure {
    fn line(&self) -> String {
        let Self { name, unit, what, .. } = self;
        let amount = |value: f64| match value {
            small if small < 100.0 => format!("{small:.1} {unit}"),
            large => format!("{large:.0} {unit}"),
        };
        let goal = match self.goal {
            Goal::RatioAtLeast(ratio) => format!("≥ {ratio:.2}"),
            Goal::ValueAtMost(value) => format!("≤ {value:.0} {unit}"),
            Goal::AboveBaselineAtMost(more) => format!("≤ {more:.0} {unit} above"),
            Goal::None => String::new(),
        };
        let baseline = self.baseline.map(amount).unwrap_or_default();
        let ratio = self.ratio.map(|r| format!("{r:.2}")).unwrap_or_default();
        format!("| {name} | {} | {baseline} | {ratio} | {goal} | {what} |", amount(self.value))
    }
}
