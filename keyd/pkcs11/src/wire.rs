//! What keyd and a worker say to each other. Both are the same build, so the numbers need no history.
//!
//! Messages that carry secrets print nothing and are wiped when dropped.

use prost::{Enumeration, Message, Oneof};
use zeroize::Zeroize;

use crate::mechanisms::{self, VendorNumbers};

/// The first message to a worker: what it is for. The sockets of its sessions come with it.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Opening {
    #[prost(oneof = "Task", tags = "1, 2, 3")]
    pub task: Option<Task>,
}

#[derive(Clone, PartialEq, Oneof)]
#[prost(skip_debug)]
pub(crate) enum Task {
    /// Answers the requests of each session until keyd closes its socket.
    #[prost(message, tag = "1")]
    Serve(Serve),
    /// Initialises a blank token, answers once, and ends.
    #[prost(message, tag = "2")]
    Provision(Provision),
    /// Tells which tokens a module shows; answers once, and ends.
    #[prost(message, tag = "3")]
    Survey(Survey),
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Serve {
    #[prost(bytes = "vec", tag = "1")]
    pub module: Vec<u8>,
    /// One of label and serial.
    #[prost(string, optional, tag = "2")]
    pub label: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub serial: Option<String>,
    #[prost(bytes = "vec", tag = "4")]
    pub pin: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub mechanisms: Option<Mechanisms>,
    /// Whether an earlier worker saw the token accept the PIN.
    #[prost(bool, tag = "6")]
    pub pin_accepted: bool,
}

/// A [`crate::Mechanisms`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Mechanisms {
    #[prost(message, optional, tag = "1")]
    pub ml_dsa: Option<Numbers>,
    #[prost(message, optional, tag = "2")]
    pub ml_kem: Option<Numbers>,
}

/// A [`crate::VendorNumbers`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Numbers {
    #[prost(uint32, tag = "1")]
    pub key_pair_gen: u32,
    #[prost(uint32, tag = "2")]
    pub operation: u32,
    #[prost(uint32, optional, tag = "3")]
    pub key_type: Option<u32>,
    #[prost(uint32, optional, tag = "4")]
    pub parameter_set: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Provision {
    #[prost(bytes = "vec", tag = "1")]
    pub module: Vec<u8>,
    #[prost(string, tag = "2")]
    pub label: String,
    #[prost(bytes = "vec", tag = "3")]
    pub so_pin: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub user_pin: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Survey {
    #[prost(bytes = "vec", tag = "1")]
    pub module: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub mechanisms: Option<Mechanisms>,
}

/// A call, on a session's socket; its reply is the next thing that comes back there.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Request {
    #[prost(oneof = "Operation", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    pub operation: Option<Operation>,
}

#[derive(Clone, PartialEq, Oneof)]
#[prost(skip_debug)]
pub(crate) enum Operation {
    /// Answered with bytes: the signature, raw, `r || s` for elliptic curves.
    #[prost(message, tag = "2")]
    Sign(Sign),
    /// Answered with bytes: the raw public key.
    #[prost(message, tag = "3")]
    Create(Create),
    /// Destroys whatever has this CKA_ID.
    #[prost(bytes, tag = "4")]
    Delete(Vec<u8>),
    /// Answered with bytes: the blob.
    #[prost(message, tag = "5")]
    Seal(Seal),
    /// Answered with the secret.
    #[prost(message, tag = "6")]
    Unseal(Unseal),
    /// Answered with a page of a listing.
    #[prost(message, tag = "7")]
    List(List),
    #[prost(message, tag = "8")]
    Describe(()),
    /// Answered with the shared secret.
    #[prost(message, tag = "9")]
    Decapsulate(Decapsulate),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sign {
    /// CKA_ID.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(string, tag = "2")]
    pub algorithm: String,
    /// The message for ML-DSA, the digest for elliptic curves and for RSA-PSS, the DigestInfo for RSA with PKCS#1 v1.5.
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
    #[prost(enumeration = "Pss", tag = "4")]
    pub pss: i32,
}

/// The hash of an RSA-PSS signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
pub(crate) enum Pss {
    /// The signature is none.
    No = 0,
    Sha256 = 1,
    Sha384 = 2,
    Sha512 = 3,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Decapsulate {
    /// CKA_ID.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(string, tag = "2")]
    pub algorithm: String,
    #[prost(bytes = "vec", tag = "3")]
    pub ciphertext: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Create {
    /// CKA_ID.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(string, tag = "2")]
    pub label: String,
    #[prost(string, tag = "3")]
    pub algorithm: String,
    /// CKA_ID of an earlier try, of which nothing may remain; empty where there was none.
    #[prost(bytes = "vec", tag = "4")]
    pub remains: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct List {
    #[prost(enumeration = "Class", tag = "1")]
    pub class: i32,
    /// Where the page before ended; none for the first.
    #[prost(message, optional, tag = "2")]
    pub after: Option<Mark>,
}

/// A place in a listing. Handles are numbers of one worker's.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Mark {
    /// Process id.
    #[prost(uint32, tag = "1")]
    pub worker: u32,
    #[prost(uint64, tag = "2")]
    pub handle: u64,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Seal {
    #[prost(bytes = "vec", tag = "1")]
    pub secret: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub context: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Unseal {
    #[prost(bytes = "vec", tag = "1")]
    pub blob: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub context: Vec<u8>,
}

/// An answer on a session's socket, or on the worker's first one news of the PIN.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Reply {
    #[prost(oneof = "Answer", tags = "2, 3, 4, 5, 6, 7, 8, 9, 20")]
    pub answer: Option<Answer>,
}

#[derive(Clone, PartialEq, Oneof)]
#[prost(skip_debug)]
pub(crate) enum Answer {
    #[prost(message, tag = "2")]
    Failed(Failed),
    #[prost(message, tag = "3")]
    Done(()),
    #[prost(bytes, tag = "4")]
    Bytes(Vec<u8>),
    #[prost(message, tag = "5")]
    Opened(Opened),
    #[prost(message, tag = "6")]
    Objects(Objects),
    #[prost(message, tag = "7")]
    Description(Description),
    /// Whether a token was initialised, or was there already.
    #[prost(bool, tag = "8")]
    Provisioned(bool),
    #[prost(enumeration = "PinNews", tag = "9")]
    Pin(i32),
    #[prost(message, tag = "20")]
    Tokens(ShownTokens),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Failed {
    /// The name of a `keyd_core::Reason`.
    #[prost(string, tag = "1")]
    pub reason: String,
    #[prost(string, tag = "2")]
    pub message: String,
    /// This worker is of no more use.
    #[prost(bool, tag = "3")]
    pub retire: bool,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Opened {
    #[prost(bytes = "vec", tag = "1")]
    pub secret: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Objects {
    #[prost(message, repeated, tag = "1")]
    pub objects: Vec<Object>,
    /// Where the next page begins, if there is one.
    #[prost(message, optional, tag = "2")]
    pub next: Option<Mark>,
    /// The mark was another worker's, so this is the first page again.
    #[prost(bool, tag = "3")]
    pub anew: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Object {
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub label: String,
    #[prost(enumeration = "Class", tag = "3")]
    pub class: i32,
    #[prost(bool, tag = "4")]
    pub sensitive: bool,
    #[prost(bool, tag = "5")]
    pub extractable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
pub(crate) enum Class {
    Unspecified = 0,
    Private = 1,
    Public = 2,
    Wrapping = 3,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ShownTokens {
    #[prost(message, repeated, tag = "1")]
    pub tokens: Vec<ShownToken>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ShownToken {
    #[prost(uint64, tag = "1")]
    pub slot: u64,
    #[prost(string, tag = "2")]
    pub label: String,
    #[prost(string, tag = "3")]
    pub serial: String,
    #[prost(string, tag = "4")]
    pub product: String,
    #[prost(enumeration = "TokenState", tag = "5")]
    pub state: i32,
    #[prost(string, repeated, tag = "6")]
    pub algorithms: Vec<String>,
    #[prost(bool, tag = "7")]
    pub wraps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
pub(crate) enum TokenState {
    Ready = 0,
    Blank = 1,
    WithoutPin = 2,
    FinalTry = 3,
    Locked = 4,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Description {
    /// Maker and model, as the token says.
    #[prost(string, tag = "1")]
    pub product: String,
    #[prost(string, repeated, tag = "2")]
    pub algorithms: Vec<String>,
    /// Whether it has AES-GCM.
    #[prost(bool, tag = "3")]
    pub wraps: bool,
}

/// What became of the PIN. Sent as it happens, so that it is known even if the worker dies the next moment; a
/// refusal is sent as [`Failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
pub(crate) enum PinNews {
    Unspecified = 0,
    /// It is about to be presented.
    Tried = 1,
    Accepted = 2,
    /// As far as the module says, the token did not come to look at it. Said of an accepted PIN alone.
    Untouched = 3,
}

// === impl Mechanisms ===

impl From<&mechanisms::Mechanisms> for Mechanisms {
    fn from(mechanisms: &mechanisms::Mechanisms) -> Self {
        let mechanisms::Mechanisms { ml_dsa, ml_kem } = mechanisms;
        Self { ml_dsa: ml_dsa.map(Into::into), ml_kem: ml_kem.map(Into::into) }
    }
}

impl From<Mechanisms> for mechanisms::Mechanisms {
    fn from(mechanisms: Mechanisms) -> Self {
        let Mechanisms { ml_dsa, ml_kem } = mechanisms;
        Self { ml_dsa: ml_dsa.map(Into::into), ml_kem: ml_kem.map(Into::into) }
    }
}

// === impl Numbers ===

impl From<VendorNumbers> for Numbers {
    fn from(numbers: VendorNumbers) -> Self {
        let VendorNumbers { key_pair_gen, operation, key_type, parameter_set } = numbers;
        Self { key_pair_gen, operation, key_type, parameter_set }
    }
}

impl From<Numbers> for VendorNumbers {
    fn from(numbers: Numbers) -> Self {
        let Numbers { key_pair_gen, operation, key_type, parameter_set } = numbers;
        Self { key_pair_gen, operation, key_type, parameter_set }
    }
}

// === wiping ===

impl Drop for Serve {
    fn drop(&mut self) {
        self.pin.zeroize();
    }
}

impl Drop for Provision {
    fn drop(&mut self) {
        self.so_pin.zeroize();
        self.user_pin.zeroize();
    }
}

impl Drop for Seal {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}
