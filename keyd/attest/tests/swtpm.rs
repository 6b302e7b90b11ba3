//! The protocol against a software TPM, driven by tpm2-tools: what these activate and quote is what a real TPM would.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of a test, which clippy does not take for one"
)]

use std::fs;

use keyd_attest::wire::Public;
use keyd_attest::{
    Attested, Credential, EkRoots, Enrolled, Fresh, Manifest, Payload, PcrSet, PcrValues, Policy, References,
    Refusal, Verifier, node,
};
use keyd_core::Secret;
use peers::swtpm::Swtpm;
use rustls_pki_types::UnixTime;
use tempfile::TempDir;

const KEY: [u8; 32] = [7; 32];
const PCRS: [u8; 2] = [0, 7];
/// What TPM2_CreatePrimary makes a restricted signing key of.
const AK_ATTRIBUTES: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign";

/// A software TPM, an attestation key in it, and a place for the tools' files.
struct Tpm {
    swtpm: Swtpm,
    dir: TempDir,
}

/// An endorsement key as the tools name it.
struct Ek {
    object: &'static str,
    certificate: Option<&'static str>,
    /// Whether using it takes PolicySecret of the endorsement hierarchy (the templates L-1 and L-2).
    policy: bool,
}

const RSA_2048: Ek = Ek { object: "0x81010001", certificate: Some("0x1c00002"), policy: true };
const P384: Ek = Ek { object: "0x81010016", certificate: Some("0x1c00016"), policy: false };
const P256: Ek = Ek { object: "ek-p256.ctx", certificate: None, policy: true };

impl Tpm {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let tpm = Self { swtpm: Swtpm::start(&dir.path().join("tpm")).unwrap(), dir };
        let scheme = "ecc256:ecdsa-sha256:null";
        tpm.run("tpm2_createprimary", &["-C", "e", "-G", scheme, "-a", AK_ATTRIBUTES, "-c", "ak.ctx"]);
        tpm.run("tpm2_createek", &["-G", "ecc", "-c", P256.object]);
        tpm
    }

    /// Runs one of the tools, and leaves nothing loaded.
    fn run(&self, tool: &str, arguments: &[&str]) {
        for (tool, arguments) in [(tool, arguments), ("tpm2_flushcontext", &["-t"])] {
            let output = self.swtpm.tool(tool).args(arguments).current_dir(&self.dir).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{tool} {arguments:?}: {said}");
        }
    }

    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(file)).unwrap()
    }

    /// TPMT_PUBLIC of a key.
    fn public(&self, object: &str) -> Vec<u8> {
        self.run("tpm2_readpublic", &["-c", object, "-o", "public"]);
        // The tool writes a TPM2B_PUBLIC: two bytes of length in front.
        self.read("public")[2..].to_vec()
    }

    fn payload(&self, ek: &Ek) -> Payload {
        let certificate = ek.certificate.map(|index| {
            self.run("tpm2_nvread", &[index, "-C", "o", "-o", "certificate"]);
            self.read("certificate")
        });
        Payload::new(certificate, self.public(ek.object), &self.public("ak.ctx"), vec![KEY]).unwrap()
    }

    fn activate(&self, ek: &Ek, credential: &Credential) -> Secret {
        // The tool's own file: magic, version, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
        let mut blob = vec![0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];
        for field in [&credential.id_object, &credential.encrypted_secret] {
            blob.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
            blob.extend(field);
        }
        fs::write(self.dir.path().join("credential"), blob).unwrap();
        let mut arguments = vec!["-c", "ak.ctx", "-C", ek.object, "-i", "credential", "-o", "secret"];
        if ek.policy {
            self.run("tpm2_startauthsession", &["--policy-session", "-S", "session.ctx"]);
            self.run("tpm2_policysecret", &["-S", "session.ctx", "-c", "e"]);
            arguments.extend(["-P", "session:session.ctx"]);
        }
        self.run("tpm2_activatecredential", &arguments);
        if ek.policy {
            self.run("tpm2_flushcontext", &["session.ctx"]);
        }
        Secret::new(self.read("secret"))
    }

    fn quote(&self, request: &node::QuoteRequest) -> (Vec<u8>, Vec<u8>, PcrValues) {
        let indexes: Vec<String> = request.pcrs.iter().map(u8::to_string).collect();
        let selection = format!("sha256:{}", indexes.join(","));
        let data = hex::encode(&request.qualifying_data);
        self.run(
            "tpm2_quote",
            &["-c", "ak.ctx", "-l", &selection, "-q", &data, "-m", "attest", "-s", "signature"],
        );
        (self.read("attest"), self.read("signature"), self.pcrs(&request.pcrs))
    }

    fn pcrs(&self, indexes: &[u8]) -> PcrValues {
        let text: Vec<String> = indexes.iter().map(u8::to_string).collect();
        self.run("tpm2_pcrread", &[&format!("sha256:{}", text.join(",")), "-o", "values"]);
        let values = self.read("values");
        PcrValues::new(indexes.iter().copied().zip(values.chunks(32))).unwrap()
    }

    fn attest(&self, verifier: &Verifier, ek: &Ek) -> Result<Attested, Refusal> {
        let (state, payload) = node::begin(&self.payload(ek));
        let now = UnixTime::now();
        let (pending, challenge) = verifier.begin(&Payload::decode(&payload)?, now, Fresh::generate()?)?;
        let (state, credential) = state.challenge(&challenge)?;
        let (state, request) = state.secret(&self.activate(ek, &credential));
        let (attest, signature, values) = self.quote(&request);
        pending.verify(&state.quote(attest, signature, values)?, UnixTime::now())
    }

    fn manifest(&self, ek: &Ek) -> Manifest {
        let payload = self.payload(ek);
        Manifest {
            version: 1,
            node: "edge-17".to_owned(),
            ek_sha256: payload.ek.sha256(),
            ek_certificate: None,
            ak_name: payload.ak.name(),
            manufacturer: "IBM".to_owned(),
            firmware_version: "1".to_owned(),
            pcrs: References { sha256: self.pcrs(&PCRS) },
        }
    }

    /// The authorities that issued this TPM's EK certificates.
    fn roots(&self) -> EkRoots {
        let pem: Vec<u8> = self.swtpm.ek_roots().iter().flat_map(|file| fs::read(file).unwrap()).collect();
        EkRoots::from_pem(&pem).unwrap()
    }
}

fn policy(ek_roots: Option<EkRoots>, manifest: Option<Manifest>) -> Verifier {
    let enrolled = manifest.map(|m| Enrolled::from_texts([("edge-17.json", m.to_json().unwrap())]).unwrap());
    Verifier::new(Policy { ek_roots, enrolled, pcrs: PcrSet::new(PCRS).unwrap() }).unwrap()
}

#[test]
fn a_tpm_attests_by_certificate_and_by_list_until_a_pcr_moves() {
    let tpm = Tpm::new();
    for ek in [&RSA_2048, &P384] {
        let attested = tpm.attest(&policy(Some(tpm.roots()), None), ek).unwrap();
        assert!(
            attested.selectors.contains(&"manufacturer:id:00001014".to_owned()),
            "{:?}",
            attested.selectors
        );
        assert_eq!(attested.keys, [KEY]);
    }
    let listed = policy(None, Some(tpm.manifest(&P256)));
    let attested = tpm.attest(&listed, &P256).unwrap();
    assert_eq!(attested.node.as_deref(), Some("edge-17"));
    let refusal = tpm.attest(&listed, &RSA_2048).unwrap_err();
    assert!(matches!(refusal, Refusal::EkNotEnrolled { .. }), "{refusal}");

    tpm.run("tpm2_pcrextend", &[&format!("7:sha256={}", "ab".repeat(32))]);
    let refusal = tpm.attest(&listed, &P256).unwrap_err();
    assert!(matches!(refusal, Refusal::PcrMoved { index: 7, .. }), "{refusal}");
    // Without a reference value the new one is only reported.
    let attested = tpm.attest(&policy(Some(tpm.roots()), None), &P384).unwrap();
    let moved = format!("pcr:sha256:7:{}", hex::encode(tpm.pcrs(&[7]).get(7).unwrap()));
    assert!(attested.selectors.contains(&moved), "{:?}", attested.selectors);
}

#[test]
fn names_are_the_tpms_own() {
    let tpm = Tpm::new();
    for object in ["ak.ctx", RSA_2048.object, P384.object, P256.object] {
        let public = Public::parse(&tpm.public(object)).unwrap();
        tpm.run("tpm2_readpublic", &["-c", object, "-n", "name"]);
        assert_eq!(public.name(), tpm.read("name"), "{object}");
    }
}

#[test]
fn certificates_of_another_authority_are_refused() {
    let (tpm, other) = (Tpm::new(), Tpm::new());
    let refusal = tpm.attest(&policy(Some(other.roots()), None), &P384).unwrap_err();
    assert!(matches!(refusal, Refusal::EkCertificateUntrusted { .. }), "{refusal}");
}
