//! An identity that keyd-agent gives to the proxy.

#![no_main]

use keyd_api::agent::{AgentIdentity, v1};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let Ok(identity) = v1::Identity::decode(bytes) else { return };
    if let Ok(identity) = AgentIdentity::try_from(identity) {
        keyd_proxy::fuzzing::identity(&identity);
    }
});
