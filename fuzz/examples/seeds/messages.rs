//! What keyd and the agent hear: from clients, from a worker, from SPIRE.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use const_oid::AssociatedOid;
use forge::Forge;
use keyd_api::{agent, v1};
use keyd_core::{Algorithm, PublicKey};
use keyd_escrow::{EscrowFile, EscrowedKey, OperatorKey};
use keyd_x509::{Signer, Validity};
use prost::Message;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;

use crate::{Key, corpus, put};

/// A call of each method of `keyd.v1` that takes something.
pub fn requests() -> Result<()> {
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
pub fn frames() -> Result<()> {
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
pub async fn spire() -> Result<()> {
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

/// A length-delimited field of protocol buffers.
pub fn field(tag: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let (mut out, value) = (Vec::new(), value.as_ref());
    prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(value.len() as u64, &mut out);
    out.extend(value);
    out
}

/// A number of protocol buffers.
pub fn number(tag: u32, value: u64) -> Vec<u8> {
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
