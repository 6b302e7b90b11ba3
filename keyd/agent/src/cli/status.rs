//! `keyd-agent status`.

use std::path::Path;
use std::time::{Duration, SystemTime};

use keyd_api::{status, unix_channel};
use keyd_core::Failure;
use keyd_unix::Output;
use serde_json::{Value, json};
use tonic::Request;

use crate::proto::admin::admin_service_client::AdminServiceClient;
use crate::proto::admin::{StatusRequest, StatusResponse, Svid};

/// How long the agent may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks the agent how it is.
///
/// # Errors
/// The agent cannot be reached, or refuses.
pub async fn run(socket: &Path, output: &Output) -> Result<(), Failure> {
    let mut client = AdminServiceClient::new(unix_channel(socket));
    let mut request = Request::new(StatusRequest {});
    request.set_timeout(LIMIT);
    let answer = client.status(request).await;
    let answer = answer.map_err(|s| status::failure_of("keyd-agent", &s, &socket.display().to_string()))?;
    let (status, now) = (answer.into_inner(), now());
    output.show(&describe(&status, now), |_| human(&status, now))
}

fn describe(status: &StatusResponse, now: i64) -> Value {
    let svid = |svid: &Svid| {
        json!({
            "spiffe_id": svid.spiffe_id,
            "hint": svid.hint,
            "key": (!svid.key.is_empty()).then_some(&svid.key),
            "not_after": svid.not_after,
            "seconds_left": svid.not_after - now,
        })
    };
    json!({
        "version": status.version,
        "started_at": status.started_at,
        "server": status.server_address,
        "agent": status.agent.as_ref().map(svid),
        "workloads": status.workloads.iter().map(svid).collect::<Vec<_>>(),
        "last_contact": (status.last_contact != 0).then_some(status.last_contact),
        "trouble": (!status.trouble.is_empty()).then_some(&status.trouble),
        "memory_locked": status.memory_locked,
    })
}

fn human(status: &StatusResponse, now: i64) -> String {
    let mut text = format!("keyd-agent {} serves\n", status.version);
    text.push_str(&match &status.agent {
        Some(own) => format!("agent     {}\n", line(own, now)),
        None => "agent     not attested yet\n".to_owned(),
    });
    for svid in &status.workloads {
        text.push_str(&format!("workload  {}\n", line(svid, now)));
    }
    let server = &status.server_address;
    text.push_str(&match status.last_contact {
        0 => format!("server    {server}: no contact since the start\n"),
        at => format!("server    {server}: last contact {} ago\n", span(now - at)),
    });
    if !status.trouble.is_empty() {
        text.push_str(&format!("trouble   {}\n", status.trouble));
    }
    if !status.memory_locked {
        text.push_str(
            "memory is not locked: secrets can be swapped out. Give the service LimitMEMLOCK=infinity.\n",
        );
    }
    text
}

fn line(svid: &Svid, now: i64) -> String {
    let left = svid.not_after - now;
    let ends = if left > 0 { format!("ends in {}", span(left)) } else { "has ended".to_owned() };
    let hint = if svid.hint.is_empty() { String::new() } else { format!(", hint {}", svid.hint) };
    let key = if svid.key.is_empty() { "key in memory".to_owned() } else { format!("key {}", svid.key) };
    format!("{}: {ends}; {key}{hint}", svid.spiffe_id)
}

/// Seconds as people say them.
fn span(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
