//! `agent.toml`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = keyd_agent::fuzzing::config(text);
});
