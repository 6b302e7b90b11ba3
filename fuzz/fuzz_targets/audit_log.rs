//! An audit log, line by line.

#![no_main]

use keyd_audit::Verifier;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|log: &[u8]| {
    let mut verifier = Verifier::new(None);
    for (number, line) in log.split(|b| *b == b'\n').enumerate() {
        match verifier.take(line) {
            Ok(record) if number > 0 => assert_eq!(record.seq, verifier.head().seq),
            Ok(_) => {}
            Err(broken) => {
                assert!(broken.to_string().len() < 1024, "{broken}");
                return;
            }
        }
    }
    let _ = verifier.finish();
});
