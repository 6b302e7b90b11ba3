//! Writes the seeds in fuzz/corpus, but for the configurations and names, which are written by hand: what keyd's own code
//! and a software TPM make. To be run when a format changes, with swtpm and libtss2 at hand:
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.

mod messages;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use forge::{Forge, extension};
use keyd_attest::wire::Public;
use keyd_attest::{
    Challenge, Credential, EkCertificate, EkKey, Manifest, Payload, PcrSet, PcrValues, References, Response,
};
use keyd_audit::{Base64, Draft, Event, Files, Log, Origin, Position, SEGMENT_LIMIT, checkpoint_message};
use keyd_core::{Algorithm, Failure, Operation, Protection, PublicKey, Sealer, Secret, SignInput};
use keyd_escrow::{EscrowedKey, OperatorKey};
use keyd_softkey::SoftKey;
use keyd_tpm::{PcrValue, PolicyKey, PolicySource, SealTo, Tpm, TpmConfig};
use keyd_x509::{Signer, Validity, VerifiedRequest};
use messages::{field, number};
use peers::swtpm::Swtpm;
use x509_cert::ext::pkix::ExtendedKeyUsage;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::EcP256, Algorithm::EcP384, Algorithm::MlDsa65];

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let swtpm = Swtpm::start(dir.path())?;
    attestation(&swtpm).await?;
    certificates().await?;
    audit_log()?;
    issuance()?;
    records()?;
    escrows()?;
    messages::requests()?;
    messages::frames()?;
    messages::spire().await
}

/// The structures of a TPM, the messages made of them, and what it sealed.
async fn attestation(swtpm: &Swtpm) -> Result<()> {
    let tpm = Tpm::open(TpmConfig::new(swtpm.tcti().parse()?))?;
    let e = tpm.endorsement().await?;
    put("tpmt_public", "ak", &e.ak_public)?;
    put("tpmt_public", "ek", &e.ek_public)?;
    let (ek, ak) = (Public::parse(&e.ek_public)?, Public::parse(&e.ak_public)?);
    let ek = EkKey::from_public(&ek)?;
    let roots = swtpm.ek_roots().into_iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    put("ek_roots", "swtpm", &roots.concat())?;
    let certificate = e.ek_certificate.clone().unwrap_or_default();
    put("ek_certificate", "swtpm", &certificate)?;
    put("stored_certificate", "swtpm", &certificate)?;
    put(
        "stored_certificate",
        "padded",
        &[&[0x10, 0x01, 0x00, 0x01, 0x04], &*certificate, &[0xff; 9]].concat(),
    )?;

    let manifest = Manifest {
        version: Manifest::VERSION,
        node: "edge-17".to_owned(),
        ek_sha256: ek.sha256(),
        ek_certificate: e.ek_certificate.clone().map(EkCertificate),
        ak_name: ak.name(),
        manufacturer: e.manufacturer,
        firmware_version: e.firmware_version,
        pcrs: References { sha256: PcrValues::new([(7, [0; 32])])? },
    };
    put("manifest", "swtpm", manifest.to_json()?.as_bytes())?;

    let secret = Secret::new(vec![7; 32]);
    let payload = Payload::new(e.ek_certificate, e.ek_public, &e.ak_public, vec![[7; 32], [8; 32]])?;
    put("attest_payload", "swtpm", &payload.encode())?;
    let challenge = Challenge {
        credential: Credential::make(&ek, &ak.name(), &secret)?,
        nonce: [7; 32],
        pcrs: PcrSet::new([0, 7])?,
    };
    put("attest_challenge", "keyd", &challenge.encode())?;
    let quote = tpm.quote(&[0, 7], &[7; 32]).await?;
    put("tpms_attest", "quote", &quote.attest)?;
    put("tpmt_signature", "quote", &quote.signature)?;
    let pcrs = PcrValues::new(quote.pcrs.into_iter().map(|p| (p.index, p.value)))?;
    let response = Response { attest: quote.attest, signature: quote.signature, pcrs };
    put("attest_response", "swtpm", &response.encode())?;

    put("sealed_blob", "swtpm", &tpm.seal(&secret, b"context").await?)?;
    drop(tpm);
    policies(swtpm, &secret).await
}

/// What is sealed to PCRs and to a signed policy, and that policy.
async fn policies(swtpm: &Swtpm, secret: &Secret) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let openssl = |arguments: &[&str]| {
        let status = Command::new("openssl").args(arguments).current_dir(dir.path()).status()?;
        anyhow::ensure!(status.success(), "openssl {arguments:?}");
        Ok(())
    };
    openssl(&[
        "genpkey",
        "-quiet",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-out",
        "private",
    ])?;
    openssl(&["pkey", "-in", "private", "-pubout", "-out", "public"])?;
    let pem = fs::read(dir.path().join("public"))?;
    put("policy_key", "openssl", &pem)?;
    let key = PolicyKey::from_pem(&pem).map_err(anyhow::Error::msg)?;

    let config = TpmConfig { seal_to: SealTo::Pcrs(vec![7, 16]), ..TpmConfig::new(swtpm.tcti().parse()?) };
    let tpm = Tpm::open(config.clone())?;
    let expected = PcrValue { index: 16, value: [7; 32] };
    put("sealed_blob", "pcrs", &tpm.seal_expecting(secret, b"context", &[expected]).await?)?;
    let values = tpm.read_pcrs(&[7, 16]).await?;
    drop(tpm);

    let signed = keyd_tpm::sign_policy(&fs::read(dir.path().join("private"))?, &values, None)?;
    put("signed_policy", "keyd", signed.as_bytes())?;
    let file = dir.path().join("signed");
    fs::write(&file, signed)?;
    let policy_source = Some(PolicySource { key, file });
    let tpm = Tpm::open(TpmConfig { seal_to: SealTo::SignedPolicy, policy_source, ..config })?;
    put("sealed_blob", "signed", &tpm.seal(secret, b"context").await?)
}

/// A root, an intermediate and the request for it, for each kind of key.
async fn certificates() -> Result<()> {
    let td = "td".parse()?;
    let validity = Validity::starting(SystemTime::now(), Duration::from_secs(24 * 60 * 60));
    for algorithm in ALGORITHMS {
        let (root_key, key) = (Key::new(algorithm)?, Key::new(algorithm)?);
        let root = keyd_x509::self_signed_root(&root_key, &td, validity).await?;
        let request = keyd_x509::request(&key, Some(&td.id())).await?;
        let verified = VerifiedRequest::from_der(&request)?;
        let ca = keyd_x509::issue_ca(&root_key, &root, &verified, &td, validity, None).await?;
        let name = algorithm.name();
        put("public_key", name, key.0.public_key().spki())?;
        put("certificate_request", name, &request)?;
        put("certificate", name, ca.der())?;
        put("pem_chain", name, keyd_x509::to_pem([&ca, &root])?.as_bytes())?;
    }
    Ok(())
}

/// An audit log with a checkpoint.
fn audit_log() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut log, _) = Log::open(dir.path(), SEGMENT_LIMIT, None)?;
    let key = Key::new(Algorithm::MlDsa44)?;
    let audit_key = Base64(key.0.public_key().spki().to_vec());
    let named = Event::AuditKey { audit_key, protection: Protection::Software };
    let denied = Event::Denied { operation: Operation::Sign, namespace: Some("n".parse()?), count: 2 };
    log.append(1, &[named, denied].map(|event| Draft::done(Origin { uid: Some(0), pid: Some(1) }, event)))?;
    let head = log.head();
    let signature = Base64(key.0.sign(SignInput::Message(&checkpoint_message(&head)))?);
    let event = Event::Checkpoint { through: head.seq, hash: head.hash, signature };
    log.append(2, &[Draft::done(Origin::KEYD, event)])?;
    let chunk = Files::at(dir.path())?.read(Position::default())?;
    put("audit_log", "signed", &chunk.lines[..chunk.lines.len() - 1])
}

/// What a CA key is asked to sign, for the key and the time of the fuzz target; some of it is refused.
fn issuance() -> Result<()> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let issuer = PublicKey::from_raw(Algorithm::MlDsa44, &[1; 1312])?;
    let key = Key::new(Algorithm::EcP256)?;
    let (key, td, id) = (key.0.public_key(), "spiffe://example.org", "spiffe://example.org/web");
    let leaf = || Forge::leaf(&issuer, key, id, now);
    let ca = || Forge::ca(&issuer, key, td, Some(0), now);
    let dns = forge::names(id, &["web.example.org", "*.svc.example.org"]);
    let ca_in_other_letters = Forge { subject: "CN=ca,O=Spiffe".to_owned(), ..ca() };
    for (name, forge) in [
        ("leaf", leaf()),
        ("ca", ca()),
        ("own", Forge { subject: leaf().issuer, ..ca().of(&issuer) }),
        ("leaf-dns", leaf().with(extension(&dns, false))),
        ("leaf-critical-names", Forge { subject: String::new(), ..leaf().with(extension(&dns, true)) }),
        ("leaf-critical-subject-id", leaf().with(extension(&forge::subject_id(key), true))),
        ("leaf-critical-authority-id", leaf().with(extension(&forge::authority_id(&issuer), true))),
        ("leaf-no-purpose", leaf().with(extension(&ExtendedKeyUsage(Vec::new()), false))),
        ("ca-in-other-letters", ca_in_other_letters),
        ("self-test", Forge::self_test(&issuer, td, now)),
    ] {
        put("issuance", name, &forge.tbs())?;
    }
    Ok(())
}

/// Records of the store.
fn records() -> Result<()> {
    for algorithm in ALGORITHMS {
        let key = Key::new(algorithm)?;
        let record = [
            field(1, algorithm.name()),
            field(2, "tpm-sealed"),
            number(3, 1),
            number(4, 1_800_000_000),
            field(5, key.0.public_key().spki()),
            field(6, [7; 16]),
        ];
        put("store_record", algorithm.name(), &record.concat())?;
    }
    put("store_binding", "keyd", &[number(1, 0x0180_4b44), field(2, [7; 32]), number(3, 4711)].concat())?;
    Ok(())
}

/// An escrow, what is in one, and the operator's keys.
fn escrows() -> Result<()> {
    let operator = OperatorKey::generate()?;
    put("operator_key", "private", operator.to_pem()?.expose())?;
    put("operator_key", "public", operator.recipient().to_pem()?.as_bytes())?;
    let (mut keys, mut contents) = (Vec::new(), Vec::new());
    for algorithm in ALGORITHMS {
        let soft = Key::new(algorithm)?.0;
        let id = format!("n/{algorithm}");
        let key = [
            field(1, &id),
            field(2, algorithm.name()),
            number(3, 1),
            number(4, 1_800_000_000),
            field(5, soft.public_key().fingerprint()),
            field(6, soft.secret().expose()),
        ]
        .concat();
        prost::encoding::encode_varint(key.len() as u64, &mut contents);
        contents.extend(key);
        keys.push(EscrowedKey::new(id.parse()?, 1, 1_800_000_000, &soft));
    }
    put("escrow_contents", "keyd", &contents)?;
    put("escrow_file", "keyd", &keyd_escrow::seal(&operator.recipient(), "edge-17", 1_800_000_000, &keys)?)
}

// === helpers ===

struct Key(SoftKey);

impl Key {
    fn new(algorithm: Algorithm) -> Result<Self, Failure> {
        SoftKey::from_secret(algorithm, &SoftKey::generate_secret(algorithm)?).map(Self)
    }
}

impl Signer for Key {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.0.sign(SignInput::Message(message))
    }
}

fn corpus(target: &str, name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target).join(name)
}

fn put(target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let file = corpus(target, name);
    fs::create_dir_all(file.with_file_name(""))?;
    Ok(fs::write(file, bytes)?)
}
