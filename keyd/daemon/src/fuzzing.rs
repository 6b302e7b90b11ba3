//! What the fuzz targets of this crate reach beyond its public interface.

use std::path::Path;

use keyd_api::v1;
use keyd_api::v1::admin_service_server::AdminService;
use keyd_api::v1::binding_service_server::BindingService;
use keyd_api::v1::key_service_server::KeyService;
use keyd_api::v1::tpm_service_server::TpmService;
use keyd_core::{Algorithm, Failure, Protection, Reason};
use keyd_softkey::SoftKey;
use keyd_unix::ConfigFile;
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::server::{Connected, UdsConnectInfo};
use tonic::{Code, Request, Response, Status};

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

/// `keyd.v1` as a caller meets it who may do all that changes nothing on disk.
pub struct Api {
    services: Services,
    caller: UdsConnectInfo,
    runtime: Runtime,
}

impl Api {
    /// The services without a device, and with the keys `n/ec-p256` and `n/ml-dsa-65`. What would make a key comes as far
    /// as the TPM that is not there.
    ///
    /// # Errors
    /// The store's in this directory, or the system's.
    pub fn open(state_dir: &Path) -> Result<Self, Failure> {
        let internal = |e: std::io::Error| Failure::new(Reason::Internal, e.to_string());
        let config = Config::parse(
            "keyd.toml",
            &format!(
                r#"
                tpm.tcti = "device:/dev/null"
                [[namespace]]
                name = "n"
                protections = ["tpm-sealed"]
                [[allow]]
                users = [{}]
                namespaces = ["n"]
                operations = ["create", "list", "show", "sign", "decapsulate", "attest", "bind", "status", "repair", "audit"]
                "#,
                nix::unistd::geteuid()
            ),
        )?;
        let store = Store::open(state_dir)?;
        for algorithm in [Algorithm::EcP256, Algorithm::MlDsa65] {
            let record = software_key(algorithm)?;
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
            b'd' => self.answer(request, |r: Request<v1::DeleteKeyRequest>| s.delete_key(r)),
            b'e' => self.answer(request, |r: Request<v1::EndorsementRequest>| s.endorsement(r)),
            b'a' => {
                self.answer(request, |r: Request<v1::ActivateCredentialRequest>| s.activate_credential(r))
            }
            b'q' => self.answer(request, |r: Request<v1::QuoteRequest>| s.quote(r)),
            b'p' => self.answer(request, |r: Request<v1::ReadPcrsRequest>| s.read_pcrs(r)),
            b'b' => self.answer(request, |r: Request<v1::BindAgentRequest>| s.bind_agent(r)),
            b'A' => self.answer(request, |r: Request<v1::AuditLogRequest>| s.audit_log(r)),
            b'B' => self.answer(request, |r: Request<v1::RedeemBindingRequest>| s.redeem_binding(r)),
            b'm' => self.answer(request, |r: Request<v1::MetricsRequest>| s.metrics(r)),
            b'o' => self.answer(request, |r: Request<v1::RemoveOrphanRequest>| s.remove_orphan(r)),
            _ => self.answer(request, |r: Request<v1::StatusRequest>| s.status(r)),
        }
    }

    /// No request may look like a fault of keyd's own, or be refused in more words than fit into a header.
    fn answer<M: Message + Default, R, F>(&self, bytes: &[u8], call: impl FnOnce(Request<M>) -> F)
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let Ok(message) = M::decode(bytes) else { return };
        let mut request = Request::new(message);
        request.extensions_mut().insert(self.caller.clone());
        if let Err(status) = self.runtime.block_on(call(request)) {
            assert!(!matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss), "{status}");
            assert!(status.message().len() < REFUSAL_LIMIT, "{status}");
        }
    }
}

fn software_key(algorithm: Algorithm) -> Result<KeyRecord, Failure> {
    let secret = SoftKey::generate_secret(algorithm)?;
    Ok(KeyRecord {
        id: format!("n/{algorithm}").parse()?,
        algorithm,
        protection: Protection::Software,
        version: 1,
        created_at: 0,
        public_key: SoftKey::from_secret(algorithm, &secret)?.public_key().clone(),
        material: secret,
    })
}
