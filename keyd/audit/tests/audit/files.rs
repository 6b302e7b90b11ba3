//! The files: rotation, torn ends, a full disk.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use keyd_audit::{
    AuditError, Draft, Event, Files, Head, Log, Origin, Position, Report, SEGMENT_LIMIT, Verifier,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{checkpoint, created, fill, new_key};

fn verify(path: &Path) -> Result<Report, AuditError> {
    let mut verifier = Verifier::new(None);
    let (files, mut position) = (Files::at(path)?, Position::default());
    loop {
        let chunk = files.read(position)?;
        for line in chunk.lines() {
            verifier.take(line).map_err(|broken| AuditError::Broken { path: chunk.path.clone(), broken })?;
        }
        if chunk.last {
            return verifier
                .finish()
                .map_err(|broken| AuditError::Broken { path: chunk.path.clone(), broken });
        }
        position = chunk.next;
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_log_goes_on_over_restarts_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let key = new_key();
    for _ in 0..4 {
        let (mut log, torn) = Log::open(dir.path(), 4096, None).unwrap();
        assert_eq!(torn, None);
        fill(&mut log, &key, 20);
        log.append(0, &[checkpoint(&key, log.head())]).unwrap();
    }
    let files = files(dir.path());
    assert!(files.len() > 3, "{files:?}");
    let report = verify(dir.path()).unwrap();
    // All but the last checkpoint, and a file that may have begun with it.
    assert!(report.first == 1 && report.last.seq - report.signed_through <= 2, "{report:?}");

    fs::remove_file(&files[0]).unwrap();
    let rest = verify(dir.path()).unwrap();
    assert!(rest.first > 1, "files that were moved away are told");
    assert_eq!(rest.last, report.last);

    fs::remove_file(&files[2]).unwrap();
    let message = verify(dir.path()).unwrap_err().to_string();
    assert!(message.contains("does not follow"), "{message}");
}

#[test]
fn a_log_that_does_not_hold_is_left_as_it_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
    fill(&mut log, &new_key(), 5);
    let anchor = Some(log.head());
    drop(log);
    let [file] = files(dir.path()).try_into().unwrap();
    let good = fs::read(&file).unwrap();

    let wiped = vec![0; good.len()];
    // More than a line has, so that it is found only from its beginning.
    let long = [&good[..good.len() / 2], &vec![0; 100_000]].concat();
    let cut = good[..good.len() - 1].to_vec();
    for damaged in [wiped, long, cut] {
        fs::write(&file, &damaged).unwrap();
        let error = Log::open(dir.path(), SEGMENT_LIMIT, anchor).unwrap_err();
        assert!(matches!(error, AuditError::Broken { .. }), "{error}");
        assert!(fs::read(&file).unwrap() == damaged, "it is evidence");
    }

    // Whole, and with an end that a crash left.
    fs::write(&file, [&good[..], &vec![0; 100_000]].concat()).unwrap();
    let (_, torn) = Log::open(dir.path(), SEGMENT_LIMIT, anchor).unwrap();
    assert_eq!(torn.unwrap().bytes, 100_000);
    assert!(fs::read(&file).unwrap() == good);
}

#[test]
fn a_log_is_blank_until_it_tells_of_more_than_starts_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let started = || Draft::done(Origin::KEYD, Event::Started { version: "1".to_owned() });
    for _ in 0..3 {
        let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
        log.append(0, &[started(), Draft::done(Origin::KEYD, Event::Stopped {})]).unwrap();
        assert!(log.is_blank());
    }
    let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
    log.append(0, &[created(1)]).unwrap();
    assert!(!log.is_blank());
    // The next file, of one start, follows what was recorded before.
    for limit in [SEGMENT_LIMIT, 1] {
        let (mut log, _) = Log::open(dir.path(), limit, None).unwrap();
        assert!(!log.is_blank());
        log.append(0, &[started()]).unwrap();
    }
    let (log, _) = Log::open(dir.path(), 1, None).unwrap();
    assert!(!log.is_blank());
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_was_torn() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
    log.append(0, &[created(1)]).unwrap();
    let durable = log.head();
    log.append(0, &[created(2)]).unwrap();
    let file = files(dir.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let before = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for end in before + 1..whole.len() {
        fs::write(&file, &whole[..end]).unwrap();
        let (log, torn) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
        assert_eq!(log.head(), durable);
        assert_eq!(torn.unwrap().bytes, (end - before) as u64);
    }
    verify(dir.path()).unwrap();
}

#[test]
fn a_torn_end_may_be_as_long_as_what_was_written_together_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
    log.append(0, &[created(1)]).unwrap();
    let durable = log.head();
    let path = files(dir.path()).remove(0);
    let whole = fs::metadata(&path).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // As a file system leaves what it had made room for, and not yet written.
    let torn = |bytes: u64| {
        file.set_len(whole + bytes).unwrap();
        Log::open(dir.path(), SEGMENT_LIMIT, None)
    };
    for bytes in [64 << 10, 1 << 20, (32 << 20) - 1] {
        let (log, torn) = torn(bytes).unwrap();
        assert_eq!((log.head(), torn.unwrap().bytes), (durable, bytes));
        assert_eq!(fs::metadata(&path).unwrap().len(), whole);
    }
    let said = torn(32 << 20).unwrap_err().to_string();
    assert!(said.contains("no record ends in its last 32 MiB"), "{said}");
    assert_eq!(fs::metadata(&path).unwrap().len(), whole + (32 << 20), "it is left as it is");
}

#[test]
fn a_file_that_was_begun_and_never_written_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
    log.append(0, &[created(1)]).unwrap();
    fs::write(dir.path().join("audit-000000000003.log"), b"0123").unwrap();
    let (mut log, torn) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
    assert_eq!(torn.unwrap().bytes, 4);
    log.append(0, &[created(2)]).unwrap();
    assert_eq!(verify(dir.path()).unwrap().last.seq, 3);
}

#[test]
fn a_log_that_ends_before_what_was_signed_or_says_something_else_is_not_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), 1024, None).unwrap();
    fill(&mut log, &new_key(), 30);
    let head = log.head();
    assert!(files(dir.path()).len() > 2);
    Log::open(dir.path(), 1024, Some(head)).unwrap();
    let longer = Head { seq: head.seq + 1, ..head };
    let missing = Log::open(dir.path(), 1024, Some(longer)).unwrap_err().to_string();
    assert!(missing.contains("missing"), "{missing}");
    for seq in [1, head.seq / 2, head.seq] {
        let other = Head { seq, hash: [9; 48] };
        let changed = Log::open(dir.path(), 1024, Some(other)).unwrap_err().to_string();
        assert!(changed.contains(&format!("record {seq}: another record")), "{changed}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(Log::open(empty.path(), 1024, Some(head)).is_err(), "a log that was taken away");
}

#[test]
fn a_full_disk_refuses_a_record_and_leaves_the_log_whole() {
    // The signal that comes with a file too large would end this process, so a process of its own ignores it.
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "files::on_a_full_disk", "--ignored", "--nocapture"])
        .env("KEYD_AUDIT_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert!(verify(dir.path()).unwrap().last.seq > 6);
}

#[test]
#[ignore = "run by a_full_disk_refuses_a_record_and_leaves_the_log_whole"]
fn on_a_full_disk() {
    let dir = std::env::var_os("KEYD_AUDIT_DIR").unwrap();
    let (mut log, _) = Log::open(Path::new(&dir), 2000, None).unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    for room in [10, 300, 700, 1100, 1900] {
        setrlimit(Resource::RLIMIT_FSIZE, room, hard).unwrap();
        let failed = loop {
            let before = log.head();
            match log.append(0, &[created(1)]) {
                Ok(head) => assert!(head.seq > before.seq),
                Err(error) => break (before, error),
            }
        };
        assert!(matches!(failed.1, AuditError::Io { .. }), "{}", failed.1);
        setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
        log.append(0, &[created(2)]).unwrap();
        if let Ok(report) = verify(Path::new(&dir)) {
            assert_eq!(report.last, log.head());
        } else {
            panic!("{room}: {:?}", verify(Path::new(&dir)));
        }
    }
    std::io::stdout().flush().unwrap();
}
