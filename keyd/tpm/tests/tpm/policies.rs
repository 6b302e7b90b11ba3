//! Sealing to PCRs and to a signed policy.

use std::fs;
use std::path::PathBuf;

use keyd_core::{Failure, Reason, Sealer, Secret};
use keyd_tpm::{PcrValue, PolicyKey, PolicySource, SealTo, Tpm, TpmConfig, sign_policy};

use crate::{Node, run};

/// A PCR that any locality may extend, and that nothing measures into.
const PCR: u8 = 16;

fn seed() -> Secret {
    Secret::new((1..=32).collect())
}

impl Node {
    fn to_pcrs(&self, pcrs: &[u8]) -> Tpm {
        Tpm::open(TpmConfig { seal_to: SealTo::Pcrs(pcrs.to_vec()), ..self.config() }).unwrap()
    }

    fn to_signed_policy(&self, signer: &Signer) -> Tpm {
        let policy_source = Some(PolicySource { key: signer.key(), file: signer.file() });
        Tpm::open(TpmConfig { seal_to: SealTo::SignedPolicy, policy_source, ..self.config() }).unwrap()
    }

    /// Extends [`PCR`] by a digest of this byte.
    fn extend(&self, byte: u8) {
        let digest = hex::encode([byte; 32]);
        self.tool("tpm2_pcrextend", &[&format!("{PCR}:sha256={digest}")]);
    }

    async fn values(&self, pcrs: &[u8]) -> Vec<PcrValue> {
        self.tpm().read_pcrs(pcrs).await.unwrap()
    }
}

/// Who approves states: a key made by OpenSSL, and the file that an image ships.
struct Signer {
    dir: tempfile::TempDir,
}

impl Signer {
    fn new(bits: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let this = Self { dir };
        this.openssl(&[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            &format!("rsa_keygen_bits:{bits}"),
            "-out",
            "key",
        ]);
        this.openssl(&["pkey", "-in", "key", "-pubout", "-out", "public"]);
        this
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        run(std::process::Command::new("openssl").args(arguments).current_dir(self.dir.path()))
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(name)).unwrap()
    }

    fn key(&self) -> PolicyKey {
        PolicyKey::from_pem(&self.read("public")).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("signature.json")
    }

    /// Approves these values too.
    fn approve(&self, values: &[PcrValue]) {
        let existing = fs::read(self.file()).ok();
        fs::write(self.file(), sign_policy(&self.read("key"), values, existing.as_deref()).unwrap()).unwrap();
    }
}

fn is(failure: &Failure, reason: Reason, words: &[&str]) {
    assert_eq!(failure.reason, reason, "{failure}");
    for word in words {
        assert!(failure.message.contains(word), "{word:?} is missing: {failure}");
    }
}

fn short(value: &[u8; 32]) -> String {
    hex::encode(&value[..8])
}

#[tokio::test]
async fn a_secret_sealed_to_pcrs_opens_until_one_moves_and_the_refusal_names_it_with_both_values() {
    let mut node = Node::new();
    let tpm = node.to_pcrs(&[7, PCR]);
    let blob = tpm.seal(&seed(), b"a/b").await.unwrap();
    assert_eq!(tpm.unseal(&blob, b"a/b").await.unwrap().expose(), seed().expose());
    drop(tpm);
    node.extend(1);
    let now = node.values(&[PCR]).await[0].value;
    let tpm = node.to_pcrs(&[7, PCR]);
    let told = format!("PCR 16 was {}… at sealing and is {}… now", short(&[0; 32]), short(&now));
    let failure = tpm.unseal(&blob, b"a/b").await.unwrap_err();
    is(&failure, Reason::PcrChanged, &[&told, "keyd reseal"]);
    assert!(!failure.message.contains("PCR 7 "), "that one has not moved: {failure}");
    let standing = tpm.examine(vec![blob.clone()], &[]).await.unwrap().remove(0);
    assert!(!standing.current);
    assert_eq!(standing.obstacle.unwrap(), failure);
    // A reboot into the former state opens it again, also for a keyd that is told nothing of PCRs.
    node.swtpm.restart().unwrap();
    assert_eq!(tpm.unseal(&blob, b"a/b").await.unwrap().expose(), seed().expose());
    drop(tpm);
    assert!(node.tpm().unseal(&blob, b"a/b").await.is_ok());
}

#[tokio::test]
async fn the_tpm_itself_holds_back_what_is_sealed_to_a_pcr_that_moved() {
    let node = Node::new();
    let blob = node.to_pcrs(&[PCR]).seal(&seed(), b"a/b").await.unwrap();
    node.extend(1);
    let now = node.values(&[PCR]).await[0];
    // A blob that claims to be sealed to the present value: the sealed object's own policy says otherwise.
    let mut forged = blob.clone();
    let at = blob.windows(33).position(|w| w[0] == PCR && w[1..] == [0; 32]).unwrap();
    forged[at + 1..at + 33].copy_from_slice(&now.value);
    is(
        &node.tpm().unseal(&forged, b"a/b").await.unwrap_err(),
        Reason::UnsealFailed,
        &["policy is another one"],
    );
    // Without any policy session, as whoever has the blob and other software would try.
    let area = |bytes: &[u8], at: usize| {
        let end = at + 2 + usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        (bytes[at..end].to_vec(), end)
    };
    let (public, next) = area(&blob, at + 33);
    let (private, _) = area(&blob, next);
    fs::write(node.dir.path().join("u"), public).unwrap();
    fs::write(node.dir.path().join("r"), private).unwrap();
    node.tool("tpm2_load", &["-Q", "-C", "0x81000001", "-u", "u", "-r", "r", "-c", "o"]);
    for authorization in ["", "pcr:sha256:16"] {
        let mut unseal = node.swtpm.tool("tpm2_unseal");
        unseal.args(["-c", "o", "-p", authorization]).current_dir(node.dir.path());
        assert!(!unseal.output().unwrap().status.success(), "{authorization}");
    }
}

#[tokio::test]
async fn what_is_sealed_for_a_planned_change_opens_before_it_and_after_it_and_in_no_third_state() {
    let mut node = Node::new();
    let before = node.values(&[7, PCR]).await;
    node.extend(1);
    let after = node.values(&[PCR]).await[0];
    node.swtpm.restart().unwrap();
    let tpm = node.to_pcrs(&[7, PCR]);
    let blob = tpm.seal_expecting(&seed(), b"a/b", &[after]).await.unwrap();
    assert_eq!(tpm.read_pcrs(&[7, PCR]).await.unwrap(), before);
    assert!(tpm.unseal(&blob, b"a/b").await.is_ok(), "before");
    assert!(tpm.examine(vec![blob.clone()], &[after]).await.unwrap()[0].current);
    drop(tpm);
    node.extend(1);
    let tpm = node.to_pcrs(&[7, PCR]);
    assert_eq!(tpm.unseal(&blob, b"a/b").await.unwrap().expose(), seed().expose(), "after");
    let standing = tpm.examine(vec![blob.clone()], &[]).await.unwrap().remove(0);
    assert_eq!(
        (standing.current, standing.obstacle),
        (false, None),
        "it is to be sealed to the new state alone"
    );
    drop(tpm);
    node.extend(2);
    is(&node.tpm().unseal(&blob, b"a/b").await.unwrap_err(), Reason::PcrChanged, &["PCR 16 was"]);
}

#[tokio::test]
async fn expected_values_are_of_pcrs_that_are_sealed_to() {
    let node = Node::new();
    let expected = [PcrValue { index: 8, value: [1; 32] }];
    for tpm in [node.to_pcrs(&[7]), node.tpm()] {
        let failure = tpm.seal_expecting(&seed(), b"a/b", &expected).await.unwrap_err();
        is(&failure, Reason::BadRequest, &["not sealed to PCR 8"]);
    }
}

#[tokio::test]
async fn a_signed_policy_opens_what_it_approves_and_goes_along_with_an_update() {
    let node = Node::new();
    let signer = Signer::new(2048);
    signer.approve(&node.values(&[7, PCR]).await);
    let blob = node.to_signed_policy(&signer).seal(&seed(), b"a/b").await.unwrap();
    assert_eq!(node.to_signed_policy(&signer).unseal(&blob, b"a/b").await.unwrap().expose(), seed().expose());

    node.extend(1);
    let tpm = node.to_signed_policy(&signer);
    let failure = tpm.unseal(&blob, b"a/b").await.unwrap_err();
    let file = signer.file().display().to_string();
    is(
        &failure,
        Reason::PolicyOutdated,
        &[&file, "approves no state", "PCR 16 was 0000", "systemd-measure sign"],
    );
    assert_eq!(tpm.examine(vec![blob.clone()], &[]).await.unwrap()[0].obstacle.as_ref(), Some(&failure));
    let failure = tpm.seal(&seed(), b"a/b").await.unwrap_err();
    is(&failure, Reason::PolicyOutdated, &["approves no state with the present PCRs 7, 16"]);
    drop(tpm);

    signer.approve(&node.values(&[7, PCR]).await);
    let tpm = node.to_signed_policy(&signer);
    assert_eq!(tpm.unseal(&blob, b"a/b").await.unwrap().expose(), seed().expose(), "by the newer signature");
    assert!(tpm.examine(vec![blob], &[]).await.unwrap()[0].current, "nothing needs to be sealed anew");
}

#[tokio::test]
async fn a_signature_by_another_key_or_of_no_use_opens_nothing() {
    let node = Node::new();
    let (signer, other) = (Signer::new(2048), Signer::new(2048));
    let values = node.values(&[PCR]).await;
    signer.approve(&values);
    other.approve(&values);
    let blob = node.to_signed_policy(&signer).seal(&seed(), b"a/b").await.unwrap();
    let good = signer.read("signature.json");

    let mut forged: serde_json::Value = serde_json::from_slice(&other.read("signature.json")).unwrap();
    let honest: serde_json::Value = serde_json::from_slice(&good).unwrap();
    forged["sha256"][0]["pkfp"] = honest["sha256"][0]["pkfp"].clone();
    for (text, word) in [
        (other.read("signature.json"), "no signature by the key"),
        (forged.to_string().into_bytes(), "approves no state"),
        (b"{}".to_vec(), "no signature by the key"),
        (b"{\"sha256\": 1}".to_vec(), "cannot be read"),
        (vec![b' '; 300_000], "more than 262144"),
    ] {
        fs::write(signer.file(), text).unwrap();
        let failure = node.to_signed_policy(&signer).unseal(&blob, b"a/b").await.unwrap_err();
        is(&failure, Reason::PolicyOutdated, &[word]);
    }
    fs::remove_file(signer.file()).unwrap();
    let failure = node.to_signed_policy(&signer).unseal(&blob, b"a/b").await.unwrap_err();
    is(&failure, Reason::PolicyOutdated, &["cannot be read: No such file"]);

    fs::write(signer.file(), &good).unwrap();
    let failure = node.to_signed_policy(&other).unseal(&blob, b"a/b").await.unwrap_err();
    is(&failure, Reason::PolicyOutdated, &["another key than keyd.toml names", "keyd reseal"]);
    assert!(node.to_signed_policy(&signer).unseal(&blob, b"a/b").await.is_ok());
}

#[tokio::test]
async fn what_sign_policy_writes_is_what_tpm2_tools_and_openssl_make() {
    let node = Node::new();
    let signer = Signer::new(3072);
    let values = node.values(&[0, 7, PCR]).await;
    signer.approve(&values);
    signer.approve(&values);
    let file: serde_json::Value = serde_json::from_slice(&signer.read("signature.json")).unwrap();
    let entries = file["sha256"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "twice the same is once");
    assert_eq!(entries[0]["pcrs"], serde_json::json!([0, 7, PCR]));

    node.tool("tpm2_createpolicy", &["-Q", "--policy-pcr", "-l", "sha256:0,7,16", "-L", "policy"]);
    let policy = fs::read(node.dir.path().join("policy")).unwrap();
    assert_eq!(entries[0]["pol"], hex::encode(&policy));
    fs::write(signer.dir.path().join("policy"), policy).unwrap();
    signer.openssl(&["dgst", "-sha256", "-sign", "key", "-out", "sig", "policy"]);
    signer.openssl(&["base64", "-A", "-in", "sig", "-out", "sig64"]);
    assert_eq!(entries[0]["sig"].as_str().unwrap().as_bytes(), signer.read("sig64"));
    signer.openssl(&[
        "rsa",
        "-pubin",
        "-in",
        "public",
        "-RSAPublicKey_out",
        "-outform",
        "DER",
        "-out",
        "der",
    ]);
    let fingerprint = signer.openssl(&["dgst", "-sha256", "-r", "der"]);
    assert_eq!(entries[0]["pkfp"].as_str(), fingerprint.split_whitespace().next());
}

/// The vector is what `systemd-measure sign` of systemd 252 wrote for a kernel that is the text `a kernel`.
#[tokio::test]
async fn a_file_of_systemd_measure_opens_what_boots_its_image() {
    let vector = |name: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    let key = PolicyKey::from_pem(&fs::read(vector("systemd-measure.pem")).unwrap()).unwrap();
    let policy_source = Some(PolicySource { key, file: vector("systemd-measure.json") });
    let node = Node::new();
    let config = TpmConfig { seal_to: SealTo::SignedPolicy, policy_source, ..node.config() };
    let failure = Tpm::open(config.clone()).unwrap().seal(&seed(), b"a/b").await.unwrap_err();
    is(&failure, Reason::PolicyOutdated, &["approves no state with the present PCRs 11"]);
    // What systemd-stub measures, name and content, and then each phase of the boot that the file approves.
    let measure = |what: &[u8]| {
        fs::write(node.dir.path().join("measured"), what).unwrap();
        node.tool("tpm2_pcrevent", &["-Q", "11", "measured"]);
    };
    measure(b".linux\0");
    measure(b"a kernel\n");
    measure(b"enter-initrd");
    let blob = Tpm::open(config.clone()).unwrap().seal(&seed(), b"a/b").await.unwrap();
    for phase in ["leave-initrd", "sysinit", "ready"] {
        measure(phase.as_bytes());
        let tpm = Tpm::open(config.clone()).unwrap();
        assert_eq!(tpm.unseal(&blob, b"a/b").await.unwrap().expose(), seed().expose(), "{phase}");
    }
    measure(b"shutdown");
    let failure = Tpm::open(config).unwrap().unseal(&blob, b"a/b").await.unwrap_err();
    is(&failure, Reason::PolicyOutdated, &["PCR 11 was"]);
}

#[test]
fn keys_that_no_tpm_takes_are_refused_with_the_reason() {
    let signer = Signer::new(2048);
    signer.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "ec"]);
    signer.openssl(&["pkey", "-in", "ec", "-pubout", "-out", "ec-public"]);
    signer.openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "short"]);
    signer.openssl(&["pkey", "-in", "short", "-pubout", "-out", "short-public"]);
    for (file, why) in [
        ("ec-public", "no RSA key"),
        ("short-public", "2048, 3072 or 4096 bits"),
        ("key", "not a PUBLIC KEY"),
        ("der", "not PEM"),
    ] {
        let pem = fs::read(signer.dir.path().join(file)).unwrap_or_else(|_| vec![0x30, 0x82]);
        assert!(PolicyKey::from_pem(&pem).unwrap_err().contains(why), "{file}");
    }
    let value = [PcrValue { index: 7, value: [0; 32] }];
    for (file, why) in [("public", "is a PUBLIC KEY"), ("ec", "no RSA key")] {
        let failure = sign_policy(&signer.read(file), &value, None).unwrap_err();
        is(&failure, Reason::BadRequest, &[why]);
    }
    is(&sign_policy(&signer.read("key"), &[], None).unwrap_err(), Reason::BadRequest, &["at least one PCR"]);
}
