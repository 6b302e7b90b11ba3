//! Endorsement key certificates in NV indices (TCG EK Credential Profile §2.2.1).

use tss_esapi::Context;
use tss_esapi::abstraction::nv;
use tss_esapi::handles::{NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::NvAuth;
use tss_esapi::interface_types::session_handles::AuthSession;

use crate::code::{Meaning, meaning};
use crate::error::{Doing, Error};

/// What some makers write before the certificate, for its length to follow in two bytes.
const STORED_CERTIFICATE_TAG: [u8; 3] = [0x10, 0x01, 0x00];
/// DER: a SEQUENCE whose length follows in two bytes; every certificate is that long.
const SEQUENCE_LONG: [u8; 2] = [0x30, 0x82];

/// The DER certificate at an NV index; none where there is no such index.
pub(crate) fn certificate(context: &mut Context, index: u32) -> Result<Option<Vec<u8>>, Error> {
    let index = NvIndexTpmHandle::new(index).doing("use the NV index")?;
    let mut object =
        match context.execute_without_session(|c| c.tr_from_tpm_public(TpmHandle::NvIndex(index))) {
            Ok(object) => object,
            Err(error) if meaning(&error) == Meaning::NothingThere => return Ok(None),
            Err(error) => return Err(error).doing("look for an EK certificate"),
        };
    let read = context.execute_with_session(Some(AuthSession::Password), |c| {
        nv::read_full(c, NvAuth::NvIndex(object.into()), index)
    });
    // The reader closes the handle where the library gave it the same one; then there is nothing left to close.
    let _ = context.tr_close(&mut object);
    let content = read.doing("read an EK certificate")?;
    trim(&content).map(|der| Some(der.to_vec())).ok_or(Error::BadAnswer("an EK certificate that is none"))
}

/// The certificate without a maker's header before it and padding after it.
pub(crate) fn trim(content: &[u8]) -> Option<&[u8]> {
    let der = match content.strip_prefix(&STORED_CERTIFICATE_TAG) {
        Some(rest) => rest.get(2..)?,
        None => content,
    };
    let (length, _) = der.strip_prefix(&SEQUENCE_LONG)?.split_first_chunk::<2>()?;
    der.get(..SEQUENCE_LONG.len() + 2 + usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::trim;

    #[test]
    fn header_and_padding_go_and_the_certificate_stays() {
        let der = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        assert_eq!(trim(&der), Some(&der[..]));
        assert_eq!(trim(&[&der[..], &[0xff; 99]].concat()), Some(&der[..]));
        assert_eq!(trim(&[&[0x10, 0x01, 0x00, 0x01, 0x04], &der[..], &[0; 9]].concat()), Some(&der[..]));
    }

    #[test]
    fn what_is_cut_short_or_no_certificate_is_refused() {
        let der = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        for bad in [&der[..259], &[], &[0xff; 600], &[0x30, 0x82, 1], &[0x10, 0x01, 0x00]] {
            assert_eq!(trim(bad), None);
        }
    }
}
