//! Every refusal: its exit code, its reason, and a sentence that names the thing and the next step.

mod calls;
pub mod start;
mod token;
mod tpm;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use keyd_core::{Protection, Reason};
use serde_json::Value;
use system::binary;
use system::keyd::{Keyd, namespaces};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

/// How long a start that is refused may take.
const START: Duration = Duration::from_secs(20);

/// Exit codes of keyd, as its help lists them.
pub const FAILED: i32 = 1;
pub const USAGE: i32 = 2;
pub const DENIED: i32 = 3;
pub const NO_SUCH_KEY: i32 = 4;
pub const UNREACHABLE: i32 = 5;
pub const EXISTS: i32 = 6;

/// What keyd said when it refused, with `--json`.
#[derive(Debug)]
pub struct Refusal {
    code: Option<i32>,
    pub reason: String,
    message: String,
}

impl Refusal {
    pub fn of(output: &Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        let Ok(json) = serde_json::from_str::<Value>(last) else { panic!("no refusal in JSON: {said}") };
        let text = |name: &str| json["error"][name].as_str().unwrap().to_owned();
        Self { code: output.status.code(), reason: text("reason"), message: text("message") }
    }

    #[track_caller]
    pub fn is(&self, code: i32, reason: Reason, words: &[&str]) {
        assert_eq!((self.code, self.reason.as_str()), (Some(code), reason.name()), "{self:?}");
        for word in words {
            assert!(self.message.contains(word), "{word:?} is not in {:?}", self.message);
        }
    }
}

/// How a running keyd refuses a command.
pub async fn refusal(keyd: &Keyd, args: &[&str]) -> Refusal {
    Refusal::of(&keyd.output(&[&["--json"], args].concat()).await.unwrap())
}

/// How keyd refuses to start on a configuration.
pub async fn refused_start(config: &Path) -> Refusal {
    let mut serve = Command::new(binary("keyd").unwrap());
    serve.args(["--json", "serve", "--config"]).arg(config).stdin(Stdio::null()).kill_on_drop(true);
    Refusal::of(&timeout(START, serve.output()).await.expect("it serves").unwrap())
}

/// A keyd with software keys in the namespace `dev`.
async fn software() -> (TempDir, Keyd) {
    let dir = tempfile::tempdir().unwrap();
    let keyd = Keyd::start(dir.path(), &namespaces(&[("dev", &[Protection::Software])])).await.unwrap();
    (dir, keyd)
}
