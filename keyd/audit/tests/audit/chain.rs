//! Any change to a chain is found, at its place.

use keyd_audit::{Broken, Files, Log, Position, Report, SEGMENT_LIMIT, Verifier};
use keyd_core::PublicKey;
use proptest::prelude::*;

use super::{audit_key, checkpoint, created, fill, new_key};

/// A log of some records, as lines, and the key that signed it.
fn chain(records: u32) -> (Vec<Vec<u8>>, PublicKey) {
    let dir = tempfile::tempdir().unwrap();
    let key = new_key();
    let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
    fill(&mut log, &key, records);
    let chunk = Files::at(dir.path()).unwrap().read(Position::default()).unwrap();
    assert!(chunk.last);
    (chunk.lines().map(<[u8]>::to_vec).collect(), key.public_key().clone())
}

fn verify(lines: &[Vec<u8>], key: Option<PublicKey>) -> Result<Report, Broken> {
    let mut verifier = Verifier::new(key);
    for line in lines {
        verifier.take(line)?;
    }
    verifier.finish()
}

#[test]
fn an_untouched_chain_holds_and_is_signed_to_its_last_checkpoint() {
    let (lines, key) = chain(10);
    let report = verify(&lines, Some(key.clone())).unwrap();
    assert_eq!((report.first, report.last.seq), (1, lines.len() as u64));
    assert_eq!(report.signed_through, report.last.seq - 1, "all but the checkpoint itself");
    assert_eq!(verify(&lines, None).unwrap().audit_key, Some(key), "the log names its key");
}

#[test]
fn a_chain_that_another_key_signed_is_found() {
    let (lines, _) = chain(3);
    let other = new_key().public_key().clone();
    assert_eq!(verify(&lines, Some(other)).unwrap_err().record, 2, "where the log names its key");
}

#[test]
fn a_chain_made_anew_without_the_audit_key_is_found() {
    // Whoever can write the file can hash, but cannot sign.
    let dir = tempfile::tempdir().unwrap();
    let (key, forger) = (new_key(), new_key());
    let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
    log.append(0, &[audit_key(&key), created(1)]).unwrap();
    log.append(0, &[checkpoint(&forger, log.head())]).unwrap();
    let chunk = Files::at(dir.path()).unwrap().read(Position::default()).unwrap();
    let lines: Vec<_> = chunk.lines().map(<[u8]>::to_vec).collect();
    let broken = verify(&lines, Some(key.public_key().clone())).unwrap_err();
    assert!(broken.record == 4 && broken.why.contains("signature"), "{broken}");
}

#[test]
fn a_checkpoint_of_another_chain_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let key = new_key();
    let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
    log.append(0, &[audit_key(&key), created(1)]).unwrap();
    let mut elsewhere = log.head();
    elsewhere.hash[0] ^= 1;
    log.append(0, &[checkpoint(&key, elsewhere)]).unwrap();
    assert!(Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap_err().to_string().contains("another chain"));
}

#[test]
fn a_clock_that_was_set_back_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None).unwrap();
    for time in [100, 200, 50, 60] {
        log.append(time, &[created(1)]).unwrap();
    }
    let chunk = Files::at(dir.path()).unwrap().read(Position::default()).unwrap();
    let lines: Vec<_> = chunk.lines().map(<[u8]>::to_vec).collect();
    assert_eq!(verify(&lines, None).unwrap().clock_set_back, 1);
}

#[test]
fn a_huge_line_is_refused_in_few_words() {
    let hash = "0".repeat(96);
    let name = "x".repeat(10_000);
    let line = format!("{hash} {{\"seq\":1,\"time\":1,\"event\":\"{name}\",\"result\":\"ok\"}}").into_bytes();
    let broken = verify(&[line], None).unwrap_err().to_string();
    assert!(broken.contains("no record that this keyd knows") && broken.len() < 400, "{}", broken.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_flipped_bit_is_found_at_its_record(at: prop::sample::Index, byte: prop::sample::Index, bit in 0..8u8) {
        let (mut lines, key) = chain(6);
        let at = at.index(lines.len());
        let byte = byte.index(lines[at].len());
        lines[at][byte] ^= 1 << bit;
        let broken = verify(&lines, Some(key)).unwrap_err();
        prop_assert_eq!(broken.record, at as u64 + 1);
    }

    #[test]
    fn any_removed_record_is_found_at_its_place(at: prop::sample::Index) {
        let (mut lines, key) = chain(6);
        let last = lines.len();
        let at = at.index(last - 1);
        lines.remove(at);
        let broken = verify(&lines, Some(key)).unwrap_err();
        prop_assert_eq!(broken.record, at as u64 + 1);
    }

    #[test]
    fn any_two_swapped_records_are_found(a: prop::sample::Index, b: prop::sample::Index) {
        let (mut lines, key) = chain(6);
        let (a, b) = (a.index(lines.len()), b.index(lines.len()));
        prop_assume!(a != b);
        lines.swap(a, b);
        let broken = verify(&lines, Some(key)).unwrap_err();
        prop_assert_eq!(broken.record, a.min(b) as u64 + 1);
    }

    #[test]
    fn any_record_put_in_twice_is_found(at: prop::sample::Index) {
        let (mut lines, key) = chain(6);
        let at = at.index(lines.len());
        lines.insert(at, lines[at].clone());
        let broken = verify(&lines, Some(key)).unwrap_err();
        prop_assert_eq!(broken.record, at as u64 + 2);
    }

    #[test]
    fn any_end_cut_off_is_found_by_who_knows_the_last_record(keep: prop::sample::Index) {
        let (lines, key) = chain(6);
        let whole = verify(&lines, Some(key.clone())).unwrap();
        let keep = keep.index(lines.len());
        let mut verifier = Verifier::new(Some(key)).expecting(Some(whole.last));
        for line in &lines[..keep] {
            verifier.take(line).unwrap();
        }
        let broken = verifier.finish().unwrap_err();
        prop_assert_eq!(broken.record, keep as u64 + 1);
    }

    #[test]
    fn no_bytes_make_the_verifier_panic(lines: Vec<Vec<u8>>) {
        let _ = verify(&lines, None);
    }
}
