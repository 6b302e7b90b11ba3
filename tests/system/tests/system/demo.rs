//! The demo, interrupted: `make demo` itself is played whole elsewhere.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use system::binary;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// How long the demo may take to where it is interrupted, and to end then.
const LIMIT: Duration = Duration::from_secs(90);

/// The command lines of processes that name a directory.
fn processes_about(dir: &Path) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&dir.display().to_string())).collect()
}

#[tokio::test]
async fn the_demo_leaves_no_process_when_it_is_interrupted() {
    let run = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/demo"));
    let mut demo = Command::new(binary("demo").unwrap());
    let mut demo = demo.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut said = BufReader::new(demo.stdout.take().unwrap()).lines();
    let attested = async {
        while let Some(line) = said.next_line().await.unwrap() {
            assert!(!line.contains("/../"), "{line}");
            if line.starts_with("ok   the node is attested") {
                return;
            }
        }
        panic!("the demo ended before the node was attested");
    };
    timeout(LIMIT, attested).await.unwrap();
    let run = run.canonicalize().unwrap();
    assert!(processes_about(&run).len() > 3, "{:?}", processes_about(&run));
    kill(Pid::from_raw(demo.id().unwrap().try_into().unwrap()), Signal::SIGINT).unwrap();
    let rest = async { while said.next_line().await.unwrap().is_some() {} };
    let (ended, ()) = timeout(LIMIT, async { tokio::join!(demo.wait(), rest) }).await.unwrap();
    assert!(!ended.unwrap().success());
    assert_eq!(processes_about(&run), [""; 0]);
}
