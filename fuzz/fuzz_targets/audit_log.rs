//! An audit log, line by line.

#![no_main]

use keyd_audit::Verifier;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|log: &[u8]| {
    let mut verifier = Verifier::new(None);
    let mut next = None;
    for line in log.split(|b| *b == b'\n') {
        match verifier.take(line) {
            Ok(record) => {
                assert!(next.is_none_or(|next| next == record.seq), "a gap");
                next = record.seq.checked_add(1);
            }
            Err(broken) => {
                assert!(broken.to_string().len() < 1024, "{broken}");
                return;
            }
        }
    }
    let _ = verifier.finish();
});
