//! A PKCS#10 request.

#![no_main]

use keyd_x509::VerifiedRequest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    let _ = VerifiedRequest::from_der(der);
});
