//! Requests of `keyd.v1`: a byte that picks the method, then the message.

#![no_main]

use std::sync::OnceLock;

use keyd_daemon::fuzzing::Api;
use libfuzzer_sys::fuzz_target;

static API: OnceLock<Api> = OnceLock::new();

fuzz_target!(init: {
    let state = std::env::temp_dir().join(format!("keyd-fuzz-{}", std::process::id()));
    // The audit log is written and read there; whoever runs this empties its directory for temporary files.
    let api = Api::open(&state).expect("keyd opens");
    assert!(API.set(api).is_ok());
}, |bytes: &[u8]| {
    if let (Some(api), Some((method, request))) = (API.get(), bytes.split_first()) {
        api.call(*method, request);
    }
});
