//! `keyd.toml`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = keyd_daemon::fuzzing::config(text);
});
