//! Frames between keyd and a worker: four bytes of length, big-endian, then a protobuf message.
//!
//! Every buffer is wiped when dropped, because PINs and seeds pass through. For the same reason nothing reads
//! ahead into a buffer of its own; a second read costs less than a microsecond.

use std::io::{self, Read};

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroizing;

/// Longest message that a token is asked to sign, in bytes; the limit of keyd's API.
pub(crate) const MESSAGE_LIMIT: usize = 1 << 20; // 1 MiB
/// Longest frame, in bytes: a message and what goes with it.
const FRAME_LIMIT: usize = MESSAGE_LIMIT + (1 << 16); // 1 MiB + 64 KiB

/// Bytes of the length before each message.
pub(crate) const LENGTH_BYTES: usize = 4;

/// A whole frame, to be written in one go.
pub(crate) fn encode(message: &impl Message) -> io::Result<Zeroizing<Vec<u8>>> {
    let len = message.encoded_len();
    let prefix = u32::try_from(len).ok().filter(|_| len <= FRAME_LIMIT).ok_or_else(|| too_long(len))?;
    let mut frame = Zeroizing::new(Vec::with_capacity(LENGTH_BYTES + len));
    frame.extend_from_slice(&prefix.to_be_bytes());
    message.encode(&mut *frame).map_err(io::Error::other)?;
    Ok(frame)
}

/// The next message; `None` where the other side has closed.
pub(crate) fn read<M: Message + Default>(from: &mut impl Read) -> io::Result<Option<M>> {
    let mut prefix = [0; LENGTH_BYTES];
    match from.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut body = body(prefix)?;
    from.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// As [`read`], for the side that serves.
pub(crate) async fn read_async<M: Message + Default>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<M>> {
    let mut prefix = [0; LENGTH_BYTES];
    match from.read_exact(&mut prefix).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut body = body(prefix)?;
    from.read_exact(&mut body).await?;
    decode(&body).map(Some)
}

/// Length of the frame that begins with `bytes`, its prefix included; `None` where they do not tell yet.
pub(crate) fn total_len(bytes: &[u8]) -> io::Result<Option<usize>> {
    bytes.first_chunk().map(|prefix| Ok(LENGTH_BYTES + body_len(*prefix)?)).transpose()
}

/// A message without its length.
pub(crate) fn decode<M: Message + Default>(body: &[u8]) -> io::Result<M> {
    M::decode(body).map_err(invalid)
}

/// What came is not what the other side may send.
pub(crate) fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn body(prefix: [u8; LENGTH_BYTES]) -> io::Result<Zeroizing<Vec<u8>>> {
    Ok(Zeroizing::new(vec![0; body_len(prefix)?]))
}

fn body_len(prefix: [u8; LENGTH_BYTES]) -> io::Result<usize> {
    let len = usize::try_from(u32::from_be_bytes(prefix)).map_err(io::Error::other)?;
    if len > FRAME_LIMIT { Err(too_long(len)) } else { Ok(len) }
}

fn too_long(len: usize) -> io::Error {
    invalid(format!("a frame of {len} bytes; the limit is {FRAME_LIMIT}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Operation, Request, Sign};

    fn request(message: Vec<u8>) -> Request {
        let sign = Sign { key: vec![7; 16], algorithm: "ml-dsa-65".into(), data: message, pss: 0 };
        Request { operation: Some(Operation::Sign(sign)) }
    }

    #[test]
    fn the_longest_message_goes_through_and_comes_back_the_same() {
        let sent = request(vec![1; MESSAGE_LIMIT]);
        let frame = encode(&sent).unwrap();
        let mut rest = frame.as_slice();
        let got: Request = read(&mut rest).unwrap().unwrap();
        assert!(got == sent && rest.is_empty());
        assert!(read::<Request>(&mut rest).unwrap().is_none(), "the end is no error");
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_is_read() {
        assert!(encode(&request(vec![1; FRAME_LIMIT])).is_err());
        let error = read::<Request>(&mut [0xff; 64].as_slice()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("the limit is"), "{error}");
    }

    #[test]
    fn a_frame_cut_short_is_an_error() {
        let frame = encode(&request(vec![1; 100])).unwrap();
        let cut = &frame[..frame.len() - 1];
        assert!(read::<Request>(&mut &*cut).is_err());
    }
}
