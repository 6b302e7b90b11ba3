//! The typed client that commands, plugins and the agent share.

mod admin;
mod audit;
mod escrow;

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyd_core::{
    Algorithm, Failure, Hash, KeyId, Namespace, Protection, PublicKey, Reason, RsaPadding, Secret, SignInput,
};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::v1::binding_service_client::BindingServiceClient;
use crate::v1::key_service_client::KeyServiceClient;
use crate::v1::tpm_service_client::TpmServiceClient;
use crate::{ENVELOPE, MESSAGE_LIMIT, connect, status, v1};

/// How long a call may take: SPIRE gives its plugins 30 s, and a discrete TPM can need 11 s to unseal.
const CALL: Duration = Duration::from_secs(25);

/// A client of keyd on one socket. Cheap to clone; all clones share a connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    channel: Channel,
    deadline: Duration,
}

/// A key as keyd describes it.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// Its id.
    pub key: KeyId,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// The protection that it really has.
    pub protection: Protection,
    /// 1, and one more at each rotation.
    pub version: u32,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub created_at: i64,
    /// `active`.
    pub state: String,
    /// Its public key.
    pub public_key: PublicKey,
}

/// A signature and the key that verifies it.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Raw for ML-DSA and RSA, DER `ECDSA-Sig-Value` for elliptic curves.
    pub signature: Vec<u8>,
    /// SHA-256 of the public key's DER SubjectPublicKeyInfo, 32 bytes.
    pub fingerprint: Vec<u8>,
}

/// A shared secret and the key that it came from.
#[derive(Clone, Debug)]
pub struct Decapsulated {
    /// What both sides now know, 32 bytes.
    pub shared_secret: Secret,
    /// SHA-256 of the public key's DER SubjectPublicKeyInfo, 32 bytes.
    pub fingerprint: Vec<u8>,
}

/// The TPM's identity.
#[derive(Clone, Debug)]
pub struct Endorsement {
    /// DER EK certificate, where the TPM holds one.
    pub ek_certificate: Option<Vec<u8>>,
    /// TPMT_PUBLIC of the endorsement key.
    pub ek_public: Vec<u8>,
    /// TPMT_PUBLIC of the attestation key.
    pub ak_public: Vec<u8>,
    /// As "IBM".
    pub manufacturer: String,
    /// Hexadecimal.
    pub firmware_version: String,
}

/// A quote and the PCR values that it is over.
#[derive(Clone, Debug)]
pub struct Quote {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// Index and SHA-256 value (32 bytes), ascending.
    pub pcrs: Vec<(u8, Vec<u8>)>,
}

impl Client {
    /// A client of the keyd that listens on `socket`. Nothing is sent until the first call.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        let socket = socket.as_ref().to_path_buf();
        Self { channel: connect::unix_channel(&socket), socket, deadline: CALL }
    }

    /// The same client with another deadline for each call.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Makes a key; without `protection` the namespace's order decides.
    ///
    /// # Errors
    /// As keyd refuses it, or [`Reason::Unreachable`]; so for every call here.
    pub async fn create_key(
        &self,
        key: &KeyId,
        algorithm: Algorithm,
        protection: Option<Protection>,
    ) -> Result<KeyInfo, Failure> {
        let request = v1::CreateKeyRequest {
            key: key.to_string(),
            algorithm: algorithm.to_string(),
            protection: protection.map(|p| p.to_string()).unwrap_or_default(),
        };
        self.answer(self.keys().create_key(self.request(request)).await).and_then(KeyInfo::try_from)
    }

    /// The keys of a namespace, or of all that this user may list.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn list_keys(&self, namespace: Option<&Namespace>) -> Result<Vec<KeyInfo>, Failure> {
        let request =
            v1::ListKeysRequest { namespace: namespace.map(ToString::to_string).unwrap_or_default() };
        let response = self.answer(self.keys().list_keys(self.request(request)).await)?;
        response.keys.into_iter().map(KeyInfo::try_from).collect()
    }

    /// One key.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn show_key(&self, key: &KeyId) -> Result<KeyInfo, Failure> {
        let request = v1::ShowKeyRequest { key: key.to_string() };
        self.answer(self.keys().show_key(self.request(request)).await).and_then(KeyInfo::try_from)
    }

    /// Signs.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn sign(&self, key: &KeyId, input: SignInput<'_>) -> Result<Signed, Failure> {
        use v1::sign_request::Input;
        let (input, padding) = match input {
            SignInput::Message(message) => {
                (Input::Message(message.to_vec().into()), v1::RsaPadding::Unspecified)
            }
            SignInput::Digest { hash, digest } => {
                (Input::Digest(wire_digest(hash, digest)), v1::RsaPadding::Unspecified)
            }
            SignInput::RsaDigest { padding, hash, digest } => {
                let padding = match padding {
                    RsaPadding::Pkcs1v15 => v1::RsaPadding::Pkcs1v15,
                    RsaPadding::Pss => v1::RsaPadding::Pss,
                };
                (Input::Digest(wire_digest(hash, digest)), padding)
            }
        };
        let request = v1::SignRequest { key: key.to_string(), input: Some(input), padding: padding.into() };
        let response = self.answer(self.keys().sign(self.request(request)).await)?;
        Ok(Signed { signature: response.signature.into(), fingerprint: response.fingerprint.into() })
    }

    /// Recovers the shared secret from a ciphertext of ML-KEM (FIPS 203 §7.3).
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn decapsulate(&self, key: &KeyId, ciphertext: &[u8]) -> Result<Decapsulated, Failure> {
        let request = v1::DecapsulateRequest { key: key.to_string(), ciphertext: ciphertext.to_vec().into() };
        let mut response = self.answer(self.keys().decapsulate(self.request(request)).await)?;
        let fingerprint = std::mem::take(&mut response.fingerprint).into();
        Ok(Decapsulated { shared_secret: response.take_secret(), fingerprint })
    }

    /// Replaces a key by a new one, of the same algorithm and protection unless others are given.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn rotate_key(
        &self,
        key: &KeyId,
        algorithm: Option<Algorithm>,
        protection: Option<Protection>,
    ) -> Result<KeyInfo, Failure> {
        let request = v1::RotateKeyRequest {
            key: key.to_string(),
            algorithm: algorithm.map(|a| a.to_string()).unwrap_or_default(),
            protection: protection.map(|p| p.to_string()).unwrap_or_default(),
        };
        self.answer(self.keys().rotate_key(self.request(request)).await).and_then(KeyInfo::try_from)
    }

    /// Moves a key to another protection, to a weaker one only with `weaker`. Gives the key, and the protection that it
    /// had before: the same where it was there already.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn migrate_key(
        &self,
        key: &KeyId,
        to: Protection,
        weaker: bool,
    ) -> Result<(KeyInfo, Protection), Failure> {
        let request = v1::MigrateKeyRequest { key: key.to_string(), protection: to.to_string(), weaker };
        let response = self.answer(self.keys().migrate_key(self.request(request)).await)?;
        Ok((KeyInfo::try_from(response.key.unwrap_or_default())?, response.before.parse()?))
    }

    /// Destroys a key.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn delete_key(&self, key: &KeyId) -> Result<(), Failure> {
        let request = v1::DeleteKeyRequest { key: key.to_string() };
        self.answer(self.keys().delete_key(self.request(request)).await).map(drop)
    }

    /// The TPM's endorsement and attestation keys.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn endorsement(&self) -> Result<Endorsement, Failure> {
        let r = self.answer(self.tpm().endorsement(self.request(v1::EndorsementRequest {})).await)?;
        Ok(Endorsement {
            ek_certificate: (!r.ek_certificate.is_empty()).then(|| r.ek_certificate.into()),
            ek_public: r.ek_public.into(),
            ak_public: r.ak_public.into(),
            manufacturer: r.manufacturer,
            firmware_version: r.firmware_version,
        })
    }

    /// The Name of the TPM's storage root key; none where there is no key. With `make` the key is made first.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn storage_root(&self, make: bool) -> Result<Option<Vec<u8>>, Failure> {
        let r = self.answer(self.tpm().storage_root(self.request(v1::StorageRootRequest { make })).await)?;
        Ok((!r.name.is_empty()).then(|| r.name.into()))
    }

    /// TPM2_ActivateCredential; takes the contents of TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn activate_credential(
        &self,
        id_object: Vec<u8>,
        encrypted_secret: Vec<u8>,
    ) -> Result<Secret, Failure> {
        let request = v1::ActivateCredentialRequest {
            id_object: id_object.into(),
            encrypted_secret: encrypted_secret.into(),
        };
        self.answer(self.tpm().activate_credential(self.request(request)).await).map(|mut r| r.take_secret())
    }

    /// TPM2_Quote over these PCRs of the SHA-256 bank; `qualifying_data` has at most 64 bytes.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn quote(&self, pcrs: &[u8], qualifying_data: Vec<u8>) -> Result<Quote, Failure> {
        let request = v1::QuoteRequest {
            pcrs: pcrs.iter().map(|p| u32::from(*p)).collect(),
            qualifying_data: qualifying_data.into(),
        };
        let r = self.answer(self.tpm().quote(self.request(request)).await)?;
        Ok(Quote { attest: r.attest.into(), signature: r.signature.into(), pcrs: pcr_values(r.pcrs)? })
    }

    /// Present PCR values of the SHA-256 bank, ascending.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn read_pcrs(&self, pcrs: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, Failure> {
        let request = v1::ReadPcrsRequest { pcrs: pcrs.iter().map(|p| u32::from(*p)).collect() };
        pcr_values(self.answer(self.tpm().read_pcrs(self.request(request)).await)?.pcrs)
    }

    /// Says that an attested agent proved possession of these keys (SHA-256 of each SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn bind_agent(&self, agent_id: &str, spki_sha256: &[[u8; 32]]) -> Result<(), Failure> {
        let request = v1::BindAgentRequest {
            agent_id: agent_id.to_owned(),
            spki_sha256: spki_sha256.iter().map(|h| h.to_vec().into()).collect(),
        };
        self.answer(self.binding().bind_agent(self.request(request)).await).map(drop)
    }

    /// Takes the binding of an agent to a key, once. [`Reason::KeyNotFound`] where there is none.
    ///
    /// # Errors
    /// See [`Client::create_key`].
    pub async fn redeem_binding(&self, agent_id: &str, spki_sha256: &[u8; 32]) -> Result<(), Failure> {
        let request = v1::RedeemBindingRequest {
            agent_id: agent_id.to_owned(),
            spki_sha256: spki_sha256.to_vec().into(),
        };
        self.answer(self.binding().redeem_binding(self.request(request)).await).map(drop)
    }

    fn keys(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.channel.clone())
            .max_encoding_message_size(MESSAGE_LIMIT + ENVELOPE)
            // A list of ten thousand keys has no place in the limit of a message that a caller sends.
            .max_decoding_message_size(usize::MAX)
    }

    fn tpm(&self) -> TpmServiceClient<Channel> {
        TpmServiceClient::new(self.channel.clone())
    }

    fn binding(&self) -> BindingServiceClient<Channel> {
        BindingServiceClient::new(self.channel.clone())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    fn answer<T>(&self, result: Result<tonic::Response<T>, Status>) -> Result<T, Failure> {
        result
            .map(tonic::Response::into_inner)
            .map_err(|status| status::to_failure(&status, &self.socket.display().to_string()))
    }
}

/// Whether a failure may pass by itself, so that a caller with time left should try again.
pub fn is_transient(failure: &Failure) -> bool {
    status::code(failure.reason) == Code::Unavailable
}

impl TryFrom<v1::KeyInfo> for KeyInfo {
    type Error = Failure;

    fn try_from(info: v1::KeyInfo) -> Result<Self, Failure> {
        Ok(Self {
            key: info.key.parse()?,
            algorithm: info.algorithm.parse()?,
            protection: info.protection.parse()?,
            version: info.version,
            created_at: info.created_at,
            state: info.state,
            public_key: PublicKey::from_spki(&info.public_key)?,
        })
    }
}

fn wire_digest(hash: Hash, digest: &[u8]) -> v1::Digest {
    let hash = match hash {
        Hash::Sha256 => v1::Hash::Sha256,
        Hash::Sha384 => v1::Hash::Sha384,
        Hash::Sha512 => v1::Hash::Sha512,
    };
    v1::Digest { hash: hash.into(), value: digest.to_vec().into() }
}

fn pcr_values(values: Vec<v1::PcrValue>) -> Result<Vec<(u8, Vec<u8>)>, Failure> {
    values
        .into_iter()
        .map(|v| {
            let index = u8::try_from(v.index)
                .map_err(|_| Failure::new(Reason::BadRequest, format!("PCR {} does not exist", v.index)))?;
            Ok((index, v.value.into()))
        })
        .collect()
}
