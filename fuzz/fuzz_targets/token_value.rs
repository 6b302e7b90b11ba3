//! Points and signatures as PKCS#11 tokens give them.

#![no_main]

use keyd_core::Algorithm;
use keyd_pkcs11::fuzzing::{ec_point, signature};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for algorithm in [Algorithm::EcP256, Algorithm::EcP384] {
        ec_point(algorithm, bytes);
        signature(algorithm, bytes);
    }
});
