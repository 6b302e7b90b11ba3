//! What the fuzz targets of this crate reach beyond its public interface.

use std::path::Path;

use keyd_api::v1;
use keyd_api::v1::admin_service_server::AdminService;
use keyd_api::v1::binding_service_server::BindingService;
use keyd_api::v1::escrow_service_server::EscrowService;
use keyd_api::v1::key_service_server::KeyService;
use keyd_api::v1::tpm_service_server::TpmService;
use keyd_core::{Algorithm, Failure, Protection, Reason};
use keyd_escrow::OperatorKey;
use keyd_softkey::SoftKey;
use keyd_unix::ConfigFile;
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio_stream::{Stream, StreamExt};
use tonic::codec::{Codec, EncodeBody};
use tonic::transport::server::{Connected, UdsConnectInfo};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::checkpoints::Checkpoints;
use crate::config::Config;
use crate::in_force::InForce;
use crate::journal::Journal;
use crate::keyring::Keyring;
use crate::places::Places;
use crate::records::Records;
use crate::service::{Admin, Services};
use crate::store::{self, KeyRecord, Store};

/// Longest sentence of a refusal, in bytes.
const REFUSAL_LIMIT: usize = 1024;

/// Reads a `keyd.toml`.
///
/// # Errors
/// As keyd reports them.
pub fn config(text: &str) -> Result<(), Failure> {
    Config::parse("keyd.toml", text).map(drop)
}

/// Reads a record of the store, and checks that what is read is written so that it reads the same.
pub fn store_record(id: &str, bytes: &[u8]) {
    if let Ok(record) = store::decode(id, bytes) {
        let written = store::encode(&record);
        assert!(
            store::decode(id, written.expose())
                .is_ok_and(|again| store::encode(&again).expose() == written.expose())
        );
        assert_eq!(record.id.to_string(), id);
    }
}

/// Reads what binds a store to the TPM's counter.
pub fn store_binding(bytes: &[u8]) {
    crate::records::fuzz_binding(bytes);
}

/// `keyd.v1` as a caller meets it who may do everything.
pub struct Api {
    services: Services,
    caller: UdsConnectInfo,
    runtime: Runtime,
}

impl Api {
    /// The services without a device. In namespace `n` are the keys `ec-p256`, `ml-dsa-65`, `ml-kem-768` and, with an
    /// issuance profile, `ca`; what would make or move a key there comes as far as the TPM that is not there. In namespace
    /// `s` the key `ec-p256` can be deleted, and a few others be made.
    ///
    /// # Errors
    /// The store's in this directory, or the system's.
    pub fn open(state_dir: &Path) -> Result<Self, Failure> {
        let internal = |e: std::io::Error| Failure::new(Reason::Internal, e.to_string());
        let recipient = state_dir.with_extension("recipient");
        std::fs::write(&recipient, OperatorKey::generate()?.recipient().to_pem()?).map_err(internal)?;
        let config = Config::parse(
            "keyd.toml",
            &format!(
                r#"
                tpm.tcti = "device:/dev/null"
                escrow.recipient = {recipient:?}
                limits.keys = 8
                audit.protections = ["software"]
                [[namespace]]
                name = "n"
                protections = ["tpm-sealed"]
                [[namespace]]
                name = "s"
                protections = ["software"]
                [[issuance]]
                keys = ["n/ca"]
                trust_domain = "example.org"
                own = {{ lifetime = "100years" }}
                ca = {{ lifetime = "100years", path_length = 1, algorithms = ["ec-p256", "ml-dsa-44"] }}
                [issuance.leaf]
                lifetime = "100years"
                ids = ["spiffe://example.org/*"]
                algorithms = ["ec-p256"]
                dns_names = ["*.example.org"]
                [[allow]]
                users = [{uid}]
                namespaces = ["n", "s"]
                operations = [
                    "create", "list", "show", "sign", "decapsulate", "migrate", "escrow", "attest", "bind", "status",
                    "reseal", "repair", "audit",
                ]
                [[allow]]
                users = [{uid}]
                namespaces = ["n"]
                operations = ["rotate"]
                [[allow]]
                users = [{uid}]
                namespaces = ["s"]
                operations = ["delete"]
                "#,
                uid = nix::unistd::geteuid()
            ),
        )?;
        let store = Store::open(state_dir)?;
        for (id, algorithm) in [
            ("n/ec-p256", Algorithm::EcP256),
            ("n/ml-dsa-65", Algorithm::MlDsa65),
            ("n/ml-kem-768", Algorithm::MlKem768),
            ("n/ca", Algorithm::MlDsa44),
            ("s/ec-p256", Algorithm::EcP256),
        ] {
            let record = software_key(id, algorithm)?;
            store.change(&record.id, Some(store::encode(&record).expose()), None)?;
        }
        let (rules, places) = (InForce::new(config)?, Places::default());
        let journal = Journal::open(state_dir, store.audit_anchor()?)?;
        let records = Records::unguarded(store.clone());
        let keyring = Keyring::load(rules.clone(), places.clone(), records, journal.clone())?;
        let checkpoints = Checkpoints::new(journal.clone(), keyring.clone(), store);
        let admin = Admin { started_at: 0, memory_locked: true, token: None, places };
        let services = Services::new(rules, keyring, (journal, checkpoints), None, admin);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(internal)?;
        let caller = {
            let _entered = runtime.enter();
            UnixStream::pair().map_err(internal)?.0.connect_info()
        };
        Ok(Self { services, caller, runtime })
    }

    /// Makes the call that `method` picks, with these bytes as its request.
    pub fn call(&self, method: u8, request: &[u8]) {
        let s = &self.services;
        match method {
            b'c' => self.answer(request, |r: Request<v1::CreateKeyRequest>| s.create_key(r)),
            b'l' => self.answer(request, |r: Request<v1::ListKeysRequest>| s.list_keys(r)),
            b's' => self.answer(request, |r: Request<v1::ShowKeyRequest>| s.show_key(r)),
            b'S' => self.answer(request, |r: Request<v1::SignRequest>| s.sign(r)),
            b'D' => self.answer(request, |r: Request<v1::DecapsulateRequest>| s.decapsulate(r)),
            b'r' => self.answer(request, |r: Request<v1::RotateKeyRequest>| s.rotate_key(r)),
            b'M' => self.answer(request, |r: Request<v1::MigrateKeyRequest>| s.migrate_key(r)),
            b'd' => self.answer(request, |r: Request<v1::DeleteKeyRequest>| s.delete_key(r)),
            b'e' => self.answer(request, |r: Request<v1::EndorsementRequest>| s.endorsement(r)),
            b'R' => self.answer(request, |r: Request<v1::StorageRootRequest>| s.storage_root(r)),
            b'a' => {
                self.answer(request, |r: Request<v1::ActivateCredentialRequest>| s.activate_credential(r))
            }
            b'q' => self.answer(request, |r: Request<v1::QuoteRequest>| s.quote(r)),
            b'p' => self.answer(request, |r: Request<v1::ReadPcrsRequest>| s.read_pcrs(r)),
            b'b' => self.answer(request, |r: Request<v1::BindAgentRequest>| s.bind_agent(r)),
            b'A' => self.answer(request, |r: Request<v1::AuditLogRequest>| s.audit_log(r)),
            b'B' => self.answer(request, |r: Request<v1::RedeemBindingRequest>| s.redeem_binding(r)),
            b'E' => self.answer_each(request, |r: Request<v1::ExportEscrowRequest>| s.export(r)),
            b'P' => self.put_back(request),
            b'f' => self.answer_each(request, |r: Request<v1::ResealRequest>| s.reseal(r)),
            b'h' => self.answer(request, |r: Request<v1::AuditHeadRequest>| s.audit_head(r)),
            b'i' => self.answer(request, |r: Request<v1::PingRequest>| s.ping(r)),
            b'x' => self.answer(request, |r: Request<v1::DoctorRequest>| s.doctor(r)),
            b'm' => self.answer(request, |r: Request<v1::MetricsRequest>| s.metrics(r)),
            b'o' => self.answer(request, |r: Request<v1::RemoveOrphanRequest>| s.remove_orphan(r)),
            _ => self.answer(request, |r: Request<v1::StatusRequest>| s.status(r)),
        }
    }

    /// The messages of a restore, each with its length before it.
    fn put_back(&self, mut bytes: &[u8]) {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let Ok(message) = v1::RestoreEscrowRequest::decode_length_delimited(&mut bytes) else { return };
            messages.push(Ok(message));
        }
        let mut codec = ProstCodec::<v1::RestoreEscrowRequest, v1::RestoreEscrowRequest>::default();
        let body = EncodeBody::new_client(codec.encoder(), tokio_stream::iter(messages), None, None);
        let sent = Streaming::new_request(codec.decoder(), body, None, None);
        let restored = each(self.services.restore(self.from_caller(sent)));
        self.judge(async {
            match restored.await {
                // The file that is damaged is the caller's.
                Err(status) if status.code() == Code::DataLoss => Ok(Response::new(())),
                other => other,
            }
        });
    }

    fn answer<M: Message + Default, R, F>(&self, bytes: &[u8], call: impl FnOnce(Request<M>) -> F)
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        if let Ok(message) = M::decode(bytes) {
            self.judge(call(self.from_caller(message)));
        }
    }

    fn answer_each<M: Message + Default, S, R, F>(&self, bytes: &[u8], call: impl FnOnce(Request<M>) -> F)
    where
        F: Future<Output = Result<Response<S>, Status>>,
        S: Stream<Item = Result<R, Status>> + Unpin,
    {
        self.answer(bytes, |request| each(call(request)));
    }

    fn from_caller<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(self.caller.clone());
        request
    }

    /// No request may look like a fault of keyd's own, or be refused in more words than fit into a header.
    fn judge<R>(&self, call: impl Future<Output = Result<Response<R>, Status>>) {
        if let Err(status) = self.runtime.block_on(call) {
            assert!(!matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss), "{status}");
            assert!(status.message().len() < REFUSAL_LIMIT, "{status}");
        }
    }
}

/// Takes all that is told.
async fn each<S, R>(call: impl Future<Output = Result<Response<S>, Status>>) -> Result<Response<()>, Status>
where
    S: Stream<Item = Result<R, Status>> + Unpin,
{
    let mut told = call.await?.into_inner();
    while let Some(one) = told.next().await {
        one?;
    }
    Ok(Response::new(()))
}

fn software_key(id: &str, algorithm: Algorithm) -> Result<KeyRecord, Failure> {
    let secret = SoftKey::generate_secret(algorithm)?;
    Ok(KeyRecord {
        id: id.parse()?,
        algorithm,
        protection: Protection::Software,
        version: 1,
        created_at: 0,
        public_key: SoftKey::from_secret(algorithm, &secret)?.public_key().clone(),
        material: secret,
    })
}
