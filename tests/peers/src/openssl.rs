//! OpenSSL 3.5 or newer: as a peer in TLS, and as a CA that issues whatever a test wants, right or
//! wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::process::Child;

/// `openssl`, ready for its arguments.
pub fn command() -> Command {
    Command::new(crate::dir().join("openssl"))
}

/// Runs `openssl` with arguments that hold no spaces.
///
/// # Errors
/// What it said.
pub fn run(arguments: &str) -> Result<Vec<u8>, String> {
    let output = command()
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot start openssl: {e}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Starts `openssl` with arguments that hold no spaces, its streams piped; killed when dropped.
///
/// # Errors
/// The kernel's.
pub fn spawn(arguments: &str) -> std::io::Result<Child> {
    tokio::process::Command::from(command())
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// PKCS#8, seed-only for ML-DSA.
    pub key: PathBuf,
}

impl Issued {
    /// The 32-byte secret from which the key follows: an ML-DSA seed, or the scalar of a P-256 key.
    ///
    /// # Errors
    /// What OpenSSL said.
    pub fn secret(&self) -> Result<Vec<u8>, String> {
        const LENGTH: usize = 32;
        let format = "-provparam ml-dsa.output_formats=seed-only -outform DER";
        let mut der = run(&format!("pkey -in {} {format}", self.key.display()))?;
        // RFC 5915 §3: SEQUENCE, version, OCTET STRING. RFC 9881 §6: the seed stands last.
        let from =
            if der.starts_with(&[0x30, 0x77, 0x02, 0x01, 0x01, 0x04]) { 7 } else { der.len() - LENGTH };
        der.drain(..from);
        der.truncate(LENGTH);
        Ok(der)
    }
}

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The name of its files, and its common name.
    pub name: &'a str,
    /// As OpenSSL names it: `ML-DSA-65`, or `EC -pkeyopt group:P-256`.
    pub algorithm: &'a str,
    /// Extensions in OpenSSL's own syntax, one a line.
    pub extensions: String,
    /// First and last moment, as `20260102030405Z`; from now for an hour or so where there is none.
    pub validity: Option<(&'a str, &'a str)>,
}

impl<'a> Subject<'a> {
    /// A leaf with the extensions of an X.509-SVID and an ML-DSA-65 key.
    pub fn leaf(name: &'a str, spiffe_id: &str) -> Self {
        let extensions = format!(
            "basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=URI:{spiffe_id}\n"
        );
        Self { name, algorithm: "ML-DSA-65", extensions, validity: None }
    }

    /// A CA of a trust domain, with an ML-DSA-65 key.
    pub fn ca(name: &'a str, trust_domain: &str) -> Self {
        let extensions = format!(
            "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n\
             subjectAltName=URI:spiffe://{trust_domain}\n"
        );
        Self { name, algorithm: "ML-DSA-65", extensions, validity: None }
    }
}

/// Issues a certificate into `directory`, signed by `issuer` or by its own key.
///
/// # Errors
/// What OpenSSL said.
pub fn issue(directory: &Path, subject: &Subject<'_>, issuer: Option<&Issued>) -> Result<Issued, String> {
    let file = |ending: &str| directory.join(format!("{}.{ending}", subject.name));
    let issued = Issued { certificate: file("pem"), key: file("key") };
    let (request, extensions) = (file("csr"), file("ext"));
    std::fs::write(&extensions, &subject.extensions).map_err(|e| e.to_string())?;
    let (key, certificate) = (issued.key.display(), issued.certificate.display());
    run(&format!(
        "genpkey -algorithm {} -provparam ml-dsa.output_formats=seed-only -out {key}",
        subject.algorithm
    ))?;
    run(&format!("req -new -key {key} -subj /CN={} -out {}", subject.name, request.display()))?;
    let signer = match issuer {
        Some(issuer) => {
            format!("-CA {} -CAkey {}", issuer.certificate.display(), issuer.key.display())
        }
        None => format!("-key {key}"),
    };
    let validity = match subject.validity {
        Some((first, last)) => format!("-not_before {first} -not_after {last}"),
        None => "-days 1".to_owned(),
    };
    run(&format!(
        "x509 -req -in {} {signer} -extfile {} {validity} -out {certificate}",
        request.display(),
        extensions.display()
    ))?;
    Ok(issued)
}
