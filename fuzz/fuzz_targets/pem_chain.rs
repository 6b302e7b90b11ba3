//! PEM certificates, as files of chains and bundles hold them.

#![no_main]

use keyd_x509::{parse_pem_chain, to_pem};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Ok(chain) = parse_pem_chain("chain.pem", text) {
        let written = to_pem(&chain).expect("what was read can be written");
        assert_eq!(parse_pem_chain("written.pem", written.as_bytes()).expect("and read again"), chain);
    }
});
