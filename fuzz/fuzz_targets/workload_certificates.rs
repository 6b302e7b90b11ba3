//! Certificates that a workload gets from the agent.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = keyd_agent::fuzzing::certificates(bytes);
});
