//! A plugin's configuration, HCL or JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(failure) = plugin_sdk::fuzzing::plugin_data(text) {
        assert!(!failure.message.contains('\n'), "SPIRE prints one line: {failure}");
    }
});
