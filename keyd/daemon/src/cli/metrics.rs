//! `keyd metrics`.

use keyd_api::Client;
use keyd_core::Failure;
use keyd_unix::Output;
use serde_json::{Map, Value, json};

/// Prints what keyd has counted.
pub async fn run(client: &Client, output: &Output) -> Result<(), Failure> {
    let text = client.metrics().await?;
    let samples: Vec<Value> = text.lines().filter_map(sample).collect();
    output.show(&json!({ "samples": samples }), |_| text)
}

/// A line `NAME{LABEL="VALUE",...} NUMBER` of keyd's, whose label values need no escapes; None for a comment.
fn sample(line: &str) -> Option<Value> {
    let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels: Map<String, Value> = labels
        .trim_end_matches('}')
        .split(',')
        .filter_map(|label| label.split_once('='))
        .map(|(label, value)| (label.to_owned(), value.trim_matches('"').into()))
        .collect();
    Some(json!({ "name": name, "labels": labels, "value": value.parse::<f64>().ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_and_comments_are_not() {
        assert_eq!(
            sample("keyd_keys{protection=\"hsm\",algorithm=\"ec-p256\"} 3"),
            Some(
                json!({ "name": "keyd_keys", "labels": { "protection": "hsm", "algorithm": "ec-p256" }, "value": 3.0 })
            )
        );
        assert_eq!(
            sample("keyd_start_time_seconds 1e9"),
            Some(json!({ "name": "keyd_start_time_seconds", "labels": {}, "value": 1e9 }))
        );
        assert_eq!(sample("# TYPE keyd_keys gauge"), None);
        assert_eq!(sample("# EOF"), None);
    }
}
