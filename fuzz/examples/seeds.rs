//! Writes the seeds in fuzz/corpus, but for the configurations and names, which are written by hand: what keyd's own code
//! and a software TPM make. To be run when a format changes, with swtpm and libtss2 at hand:
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use const_oid::AssociatedOid;
use forge::{Forge, extension};
use keyd_api::{agent, v1};
use keyd_attest::wire::Public;
use keyd_attest::{
    Challenge, Credential, EkCertificate, EkKey, Manifest, Payload, PcrSet, PcrValues, References, Response,
};
use keyd_audit::{Base64, Draft, Event, Files, Log, Origin, Position, SEGMENT_LIMIT, checkpoint_message};
use keyd_core::{Algorithm, Failure, Operation, Protection, PublicKey, Sealer, Secret, SignInput};
use keyd_escrow::{EscrowFile, EscrowedKey, OperatorKey};
use keyd_softkey::SoftKey;
use keyd_tpm::{PcrValue, PolicyKey, PolicySource, SealTo, Tpm, TpmConfig};
use keyd_x509::{Signer, Validity, VerifiedRequest};
use peers::swtpm::Swtpm;
use prost::Message;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, ExtendedKeyUsage};

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
    requests()?;
    frames()?;
    spire().await
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

/// A call of each method of `keyd.v1` that takes something.
fn requests() -> Result<()> {
    let key = || "n/ec-p256".to_owned();
    let digest = v1::Digest { hash: v1::Hash::Sha256.into(), value: vec![7; 32].into() };
    let sign = |input| v1::SignRequest { key: key(), input: Some(input), padding: 0 }.encode_to_vec();
    let create = |key: &str| v1::CreateKeyRequest {
        key: key.to_owned(),
        algorithm: "ml-dsa-65".to_owned(),
        protection: String::new(),
    };
    let delete = |key: &str| v1::DeleteKeyRequest { key: key.to_owned() }.encode_to_vec();
    let calls = [
        ("create", b'c', create("n/a").encode_to_vec()),
        ("create-software", b'c', create("s/a").encode_to_vec()),
        ("delete", b'd', delete("s/ec-p256")),
        ("delete-denied", b'd', delete("n/ca")),
        (
            "migrate",
            b'M',
            v1::MigrateKeyRequest { key: key(), protection: "tpm-sealed".into(), weaker: true }
                .encode_to_vec(),
        ),
        ("storage-root", b'R', v1::StorageRootRequest { make: true }.encode_to_vec()),
        ("export", b'E', v1::ExportEscrowRequest { namespace: "n".into() }.encode_to_vec()),
        ("restore", b'P', restore()?),
        (
            "reseal",
            b'f',
            v1::ResealRequest {
                expected: vec![v1::PcrValue { index: 7, value: vec![7; 32].into() }],
                dry_run: true,
            }
            .encode_to_vec(),
        ),
        ("audit-log", b'A', v1::AuditLogRequest { segment: 0, offset: 0 }.encode_to_vec()),
        ("audit-head", b'h', Vec::new()),
        ("doctor", b'x', Vec::new()),
        ("sign-certificate", b'S', sign_certificate()?),
        (
            "decapsulate-kem",
            b'D',
            v1::DecapsulateRequest { key: "n/ml-kem-768".into(), ciphertext: vec![7; 1088].into() }
                .encode_to_vec(),
        ),
        (
            "create-long-name",
            b'c',
            v1::CreateKeyRequest {
                key: "n/a".into(),
                algorithm: "x".repeat(2000),
                protection: String::new(),
            }
            .encode_to_vec(),
        ),
        ("list", b'l', v1::ListKeysRequest { namespace: "n".into() }.encode_to_vec()),
        ("show", b's', v1::ShowKeyRequest { key: key() }.encode_to_vec()),
        ("sign-digest", b'S', sign(v1::sign_request::Input::Digest(digest))),
        ("sign-message", b'S', sign(v1::sign_request::Input::Message(b"message".to_vec().into()))),
        (
            "decapsulate",
            b'D',
            v1::DecapsulateRequest { key: key(), ciphertext: vec![7; 1088].into() }.encode_to_vec(),
        ),
        (
            "rotate",
            b'r',
            v1::RotateKeyRequest { key: key(), algorithm: "ec-p384".into(), protection: String::new() }
                .encode_to_vec(),
        ),
        ("orphan", b'o', v1::RemoveOrphanRequest { object: vec![7; 16].into() }.encode_to_vec()),
        (
            "activate",
            b'a',
            v1::ActivateCredentialRequest {
                id_object: vec![7; 34].into(),
                encrypted_secret: vec![7; 68].into(),
            }
            .encode_to_vec(),
        ),
        (
            "quote",
            b'q',
            v1::QuoteRequest { pcrs: vec![0, 7], qualifying_data: vec![7; 32].into() }.encode_to_vec(),
        ),
        (
            "bind",
            b'b',
            v1::BindAgentRequest { agent_id: "spiffe://td/a".into(), spki_sha256: vec![vec![7; 32].into()] }
                .encode_to_vec(),
        ),
        (
            "redeem",
            b'B',
            v1::RedeemBindingRequest { agent_id: "spiffe://td/a".into(), spki_sha256: vec![7; 32].into() }
                .encode_to_vec(),
        ),
    ];
    for (name, method, request) in calls {
        put("api_request", name, &[&[method], &*request].concat())?;
    }
    Ok(())
}

/// An escrow of one key for the namespace that takes it, in the messages that bring it back.
fn restore() -> Result<Vec<u8>> {
    use v1::restore_escrow_request::Part;
    let operator = OperatorKey::generate()?;
    let key = EscrowedKey::new("s/b".parse()?, 1, 1_800_000_000, &Key::new(Algorithm::MlDsa44)?.0);
    let file = keyd_escrow::seal(&operator.recipient(), "edge-17", 1_800_000_000, &[key])?;
    let unlocked = operator.unlock(&EscrowFile::parse(&file)?)?.expose().to_vec();
    let terms = v1::RestoreEscrowTerms { unlocked: unlocked.into(), node: "edge-17".into(), dry_run: false };
    let parts = [Part::Terms(terms), Part::Chunk(file.into())];
    let messages =
        parts.map(|part| v1::RestoreEscrowRequest { part: Some(part) }.encode_length_delimited_to_vec());
    Ok(messages.concat())
}

/// What the CA key of the fuzz target signs, whose public key nobody knows before.
fn sign_certificate() -> Result<Vec<u8>> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let issuer = PublicKey::from_raw(Algorithm::MlDsa44, &[1; 1312])?;
    let key = Key::new(Algorithm::EcP256)?;
    let mut leaf = Forge::leaf(&issuer, key.0.public_key(), "spiffe://example.org/web", now);
    leaf.not_before = SystemTime::UNIX_EPOCH;
    leaf.extensions.retain(|extension| extension.extn_id != AuthorityKeyIdentifier::OID);
    let input = Some(v1::sign_request::Input::Message(leaf.tbs().into()));
    Ok(v1::SignRequest { key: "n/ca".into(), input, padding: 0 }.encode_to_vec())
}

/// What keyd and a worker say to each other while a key is made and used.
fn frames() -> Result<()> {
    let id = [7; 16];
    let serve = [field(1, "/usr/lib/module.so"), field(2, "label"), field(4, "1234")];
    let create = [field(1, id), field(2, "n/a"), field(3, "ec-p256")];
    let sign = [field(1, id), field(2, "ec-p256"), field(3, [7; 32])];
    let to_worker =
        [field(1, serve.concat()), field(3, create.concat()), field(2, sign.concat()), field(7, [])];
    let failed = [field(1, "TOKEN_ABSENT"), field(2, "the token is gone"), number(3, 1)];
    let object = [field(1, id), field(2, "n/a"), number(3, 1), number(4, 1)];
    let description = [field(1, "SoftHSM"), field(2, "ec-p256"), number(3, 1)];
    let from_worker = [
        number(9, 1),
        field(4, [7; 65]),
        field(6, field(1, object.concat())),
        field(7, description.concat()),
        field(2, failed.concat()),
    ];
    put("frames_to_worker", "key", &stream(&to_worker)?)?;
    put("frames_from_worker", "key", &stream(&from_worker)?)?;

    for algorithm in [Algorithm::EcP256, Algorithm::EcP384] {
        let key = Key::new(algorithm)?;
        let point = key.0.public_key().raw();
        put(
            "token_value",
            &format!("point-{algorithm}"),
            &[&[4, u8::try_from(point.len())?], point].concat(),
        )?;
        put("token_value", &format!("signature-{algorithm}"), &vec![7; algorithm.public_len() - 1])?;
    }
    for (name, exponent, modulus) in [
        ("rsa-2048", &[1, 0, 1][..], vec![0xc5; 256]),
        ("rsa-4096-padded", &[0, 1, 0, 1], [&[0; 4][..], &[0x95; 512]].concat()),
        ("empty-modulus", &[1, 0, 1], vec![]),
    ] {
        let seed = [&[u8::try_from(exponent.len())?][..], exponent, &modulus].concat();
        put("token_rsa_key", name, &seed)?;
    }
    put("wrapped_blob", "keyd", &[&[1][..], &[7; 16], &[8; 12], &[9; 48]].concat())
}

/// What a SPIRE server sends: `spire.api.types.Entry`, `Bundle` and `X509SVID`; and what becomes of it at the agent.
async fn spire() -> Result<()> {
    let entry = [
        field(1, "0f1c1e3a-entry"),
        field(2, [field(1, "td"), field(2, "/web")].concat()),
        field(4, [field(1, "unix"), field(2, "uid:1000")].concat()),
        field(6, "other"),
        number(9, 1_900_000_000),
        number(11, 3),
    ];
    put("spire_entry", "web", &entry.concat())?;
    let root = fs::read(corpus("certificate", "ec-p256"))?;
    put("spire_bundle", "td", &[field(1, "td"), field(2, field(1, root)), number(5, 9)].concat())?;

    // At the time of the fuzz target.
    let (ca, td) = (Key::new(Algorithm::EcP256)?, "td".parse()?);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let root =
        keyd_x509::self_signed_root(&ca, &td, Validity::starting(now, Duration::from_secs(3600))).await?;
    let key = Key::new(Algorithm::EcP256)?;
    let mut leaf = Forge::leaf(ca.public_key(), key.public_key(), "spiffe://td/web", now);
    leaf.issuer = root.subject().to_string();
    let leaf = leaf.signed(&ca.sign(&leaf.tbs()).await?);
    let chain = [leaf.as_slice(), root.der()];
    put("spire_svid", "web", &chain.map(|der| field(1, der)).concat())?;
    put("workload_certificates", "web", &chain.concat())?;
    let identity = agent::v1::Identity {
        spiffe_id: "spiffe://td/web".to_owned(),
        chain: chain.map(|der| der.to_vec().into()).to_vec(),
        bundles: [("td".to_owned(), agent::v1::Bundle { authorities: vec![root.der().to_vec().into()] })]
            .into(),
        handle: "workload/web".to_owned(),
        public_key: key.public_key().spki().to_vec().into(),
        not_after: 1_800_003_600,
    };
    put("agent_identity", "web", &identity.encode_to_vec())?;
    put(
        "process_status",
        "groups",
        b"Name:\tweb\nUid:\t1000\t1000\t1000\t1000\nGroups:\t4 24 27 1000 \nNStgid:\t7\n",
    )
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

/// A length-delimited field of protocol buffers.
fn field(tag: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let (mut out, value) = (Vec::new(), value.as_ref());
    prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(value.len() as u64, &mut out);
    out.extend(value);
    out
}

/// A number of protocol buffers.
fn number(tag: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(tag, prost::encoding::WireType::Varint, &mut out);
    prost::encoding::encode_varint(value, &mut out);
    out
}

fn stream(messages: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for message in messages {
        out.extend(u32::try_from(message.len())?.to_be_bytes());
        out.extend(message);
    }
    Ok(out)
}

fn corpus(target: &str, name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target).join(name)
}

fn put(target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let file = corpus(target, name);
    fs::create_dir_all(file.with_file_name(""))?;
    Ok(fs::write(file, bytes)?)
}
