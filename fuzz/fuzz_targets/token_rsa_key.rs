//! Modulus and exponent as PKCS#11 tokens give them: the exponent behind a byte with its length, then the modulus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((len, rest)) = bytes.split_first() {
        let (exponent, modulus) = rest.split_at(rest.len().min(usize::from(*len)));
        keyd_pkcs11::fuzzing::rsa_public_key(modulus, exponent);
    }
});
