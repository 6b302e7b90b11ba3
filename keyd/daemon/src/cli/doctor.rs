//! `keyd doctor`.

use keyd_api::Client;
use keyd_core::{Failure, Reason};
use keyd_unix::Output;
use serde_json::{Value, json};

/// Asks keyd what does not fit together.
pub async fn run(client: &Client, output: &Output) -> Result<(), Failure> {
    let findings = client.doctor().await?;
    let described: Vec<Value> = findings
        .iter()
        .map(|f| json!({ "subject": f.subject, "problem": f.problem, "next_step": f.next_step }))
        .collect();
    output.show(&json!({ "findings": described }), |_| {
        let lines = findings.iter().map(|f| format!("{}: {}. {}\n", f.subject, f.problem, f.next_step));
        if findings.is_empty() { "all is well\n".to_owned() } else { lines.collect() }
    })?;
    match findings.len() {
        0 => Ok(()),
        1 => Err(Failure::new(Reason::Integrity, "one thing needs attention")),
        n => Err(Failure::new(Reason::Integrity, format!("{n} things need attention"))),
    }
}
