//! What the kernel says of a process that calls the agent.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| keyd_agent::fuzzing::process_status(text));
