//! One request and its reply over one session's socket.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use crate::frame::{self, LENGTH_BYTES};
use crate::wire::Reply;

/// Room for a reply in bytes, to begin with: every signature fits, so that one read takes it.
const ROOM: usize = 8 * 1024;

/// An exchange that may be left in the middle and taken up again, because a session whose caller left is free only
/// when it has answered.
pub(crate) struct Exchange {
    socket: UnixStream,
    request: Zeroizing<Vec<u8>>,
    sent: usize,
    reply: Zeroizing<Vec<u8>>,
    received: usize,
}

impl Exchange {
    /// Is about to send the frame `request`.
    pub fn new(socket: UnixStream, request: Zeroizing<Vec<u8>>) -> Self {
        Self { socket, request, sent: 0, reply: Zeroizing::new(vec![0; ROOM]), received: 0 }
    }

    /// Goes on until the reply is there. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The worker closed, or sent what is no frame or more than one.
    pub async fn run(&mut self) -> io::Result<Reply> {
        while let Some(rest) = self.request.get(self.sent..).filter(|rest| !rest.is_empty()) {
            self.sent += self.socket.write(rest).await?;
        }
        loop {
            let total = frame::total_len(self.reply.get(..self.received).unwrap_or_default())?;
            match total {
                Some(total) if total == self.received => break,
                Some(total) if total < self.received => {
                    return Err(frame::invalid("two replies to one request"));
                }
                Some(total) if total > self.reply.len() => self.make_room(total),
                _ => {}
            }
            let room = self.reply.get_mut(self.received..).unwrap_or_default();
            match self.socket.read(room).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => self.received += more,
            }
        }
        frame::decode(self.reply.get(LENGTH_BYTES..self.received).unwrap_or_default())
    }

    /// The socket, for the next exchange.
    pub fn into_socket(self) -> UnixStream {
        self.socket
    }

    /// Growing in place could leave a copy of a secret behind.
    fn make_room(&mut self, total: usize) {
        let mut larger = Zeroizing::new(Vec::with_capacity(total));
        larger.extend_from_slice(self.reply.get(..self.received).unwrap_or_default());
        larger.resize(total, 0);
        self.reply = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Answer;

    fn reply(bytes: usize) -> Reply {
        Reply { answer: Some(Answer::Bytes(vec![7; bytes])) }
    }

    async fn ask(answer: Vec<u8>, pieces: usize) -> io::Result<Reply> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut exchange = Exchange::new(ours, Zeroizing::new(b"request".to_vec()));
        let worker = async move {
            let mut request = [0; 7];
            theirs.read_exact(&mut request).await.unwrap();
            for piece in answer.chunks(pieces) {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (reply, ()) = tokio::join!(exchange.run(), worker);
        reply
    }

    #[tokio::test]
    async fn replies_of_any_length_arrive_in_any_pieces() {
        for len in [0, 1, 3309, ROOM - 16, ROOM, 3 * ROOM] {
            let frame = frame::encode(&reply(len)).unwrap();
            for pieces in [1, 3, 4096, frame.len()] {
                assert!(ask(frame.to_vec(), pieces).await.unwrap() == reply(len), "{len} in {pieces}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_single_frame_is_an_error() {
        let frame = frame::encode(&reply(20)).unwrap();
        let cut = &frame[..frame.len() - 1];
        let twice = [frame.as_slice(), frame.as_slice()].concat();
        for bad in [cut, twice.as_slice(), &[0xff; 64], &[0, 0, 0, 2, 0xff, 0xff]] {
            assert!(ask(bad.to_vec(), 4096).await.is_err(), "{bad:02x?}");
        }
    }

    #[tokio::test]
    async fn an_exchange_left_in_the_middle_is_taken_up_again() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut exchange = Exchange::new(ours, Zeroizing::new(b"request".to_vec()));
        let frame = frame::encode(&reply(100)).unwrap();
        theirs.write_all(&frame[..50]).await.unwrap();
        let left = tokio::time::timeout(std::time::Duration::from_millis(20), exchange.run()).await;
        assert!(left.is_err(), "half a reply is none");
        theirs.write_all(&frame[50..]).await.unwrap();
        assert!(exchange.run().await.unwrap() == reply(100));
    }
}
