//! Everything that is named in a line of text: keys, algorithms, SPIFFE IDs, TPMs.

#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use keyd_core::{Algorithm, KeyId, KeyName, Namespace, Protection};
use keyd_tls::AllowedId;
use keyd_tpm::Tcti;
use keyd_x509::{SpiffeId, TrustDomain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    prints_as_read::<KeyId>(text);
    prints_as_read::<KeyName>(text);
    prints_as_read::<Namespace>(text);
    prints_as_read::<Algorithm>(text);
    prints_as_read::<Protection>(text);
    prints_as_read::<Tcti>(text);
    prints_as_read::<TrustDomain>(text);
    if let Some(id) = prints_as_read::<SpiffeId>(text) {
        assert_eq!(format!("{}{}", id.trust_domain().id(), id.path()), text);
        assert!(AllowedId::from_str(text).is_ok_and(|rule| rule == AllowedId::Exactly(id)));
    }
    let _ = AllowedId::from_str(text);
});

fn prints_as_read<T: FromStr<Err: Debug> + Display>(text: &str) -> Option<T> {
    let read = text.parse::<T>().ok()?;
    assert_eq!(read.to_string(), text);
    Some(read)
}
