//! PKCS#11 tokens in software: kryoptic and NSS softoken, which have ML-DSA, and SoftHSM2, which has not.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// Where Debian puts SoftHSM2.
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A token whose store is a directory of its own.
#[derive(Clone, Debug)]
pub struct Token {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// What the module must find in its environment, from before it is loaded.
    pub environment: BTreeMap<String, String>,
    /// The token's label.
    pub label: &'static str,
    /// PIN of the security officer.
    pub so_pin: &'static str,
    /// User PIN.
    pub user_pin: &'static str,
}

impl Token {
    /// A blank kryoptic token in `dir`.
    ///
    /// # Errors
    /// The module was not built, or `dir` is not writable.
    pub fn blank_kryoptic(dir: &Path) -> io::Result<Self> {
        let config = dir.join("kryoptic.conf");
        let store = dir.join("kryoptic.sql");
        fs::write(
            &config,
            format!("[[slots]]\nslot = 0\ndbtype = \"sqlite\"\ndbargs = {:?}\n", store.display().to_string()),
        )?;
        let module = crate::dir().join("kryoptic/libkryoptic_pkcs11.so");
        Self::of(module, "tests/peers/install.sh", "KRYOPTIC_CONF", &config)
    }

    /// A blank SoftHSM2 token in `dir`.
    ///
    /// # Errors
    /// SoftHSM2 is not installed, or `dir` is not writable.
    pub fn blank_softhsm(dir: &Path) -> io::Result<Self> {
        let (config, store) = (dir.join("softhsm2.conf"), dir.join("softhsm2"));
        fs::create_dir_all(&store)?;
        fs::write(&config, format!("directories.tokendir = {}\nlog.level = ERROR\n", store.display()))?;
        Self::of(SOFTHSM.into(), "apt-get install softhsm2", "SOFTHSM2_CONF", &config)
    }

    /// A kryoptic token in `dir`, ready for use.
    ///
    /// # Errors
    /// As [`Token::blank_kryoptic`], or it cannot be initialised.
    pub fn kryoptic(dir: &Path) -> io::Result<Self> {
        Self::blank_kryoptic(dir)?.initialised()
    }

    /// A SoftHSM2 token in `dir`, ready for use.
    ///
    /// # Errors
    /// As [`Token::blank_softhsm`], or it cannot be initialised.
    pub fn softhsm(dir: &Path) -> io::Result<Self> {
        Self::blank_softhsm(dir)?.initialised()
    }

    /// An NSS softoken in `dir`, ready for use; `None` where this machine could not get one, which is said on standard
    /// error whatever the test runner keeps to itself.
    ///
    /// # Errors
    /// `install.sh` was not run, `dir` is not writable, or the token cannot be initialised.
    pub fn nss(dir: &Path) -> io::Result<Option<Self>> {
        let libraries = crate::dir().join("nss").canonicalize().unwrap_or_default();
        if let Ok(why) = fs::read_to_string(libraries.join("absent")) {
            writeln!(io::stderr(), "SKIPPED for want of NSS softoken: {}", why.trim())?;
            return Ok(None);
        }
        let store = dir.join("nss");
        fs::create_dir_all(&store)?;
        let parameters = format!("configDir=sql:{}", store.display());
        let module = libraries.join("libsoftokn3.so");
        let mut token = Self::of(module, "tests/peers/install.sh", "NSS_LIB_PARAMS", Path::new(&parameters))?;
        token.label = "NSS Certificate DB";
        token.environment.insert("LD_LIBRARY_PATH".to_owned(), libraries.display().to_string());
        let pin = dir.join("nss-pin");
        fs::write(&pin, token.user_pin)?;
        let mut certutil = Command::new(libraries.join("certutil"));
        certutil.arg("-N").arg("-d").arg(format!("sql:{}", store.display())).arg("-f").arg(pin);
        token.run(certutil)?;
        Ok(Some(token))
    }

    /// Makes another token of the same module and the same label, with another user PIN.
    ///
    /// # Errors
    /// The module has no slot for it.
    pub fn add_twin(&self, user_pin: &'static str) -> io::Result<()> {
        Self { user_pin, ..self.clone() }.initialised().map(drop)
    }

    fn of(module: PathBuf, source: &str, variable: &str, config: &Path) -> io::Result<Self> {
        if !module.exists() {
            return Err(io::Error::other(format!("{} is missing: run {source}", module.display())));
        }
        Ok(Self {
            module,
            environment: BTreeMap::from([(variable.to_owned(), config.display().to_string())]),
            label: "field-kit",
            so_pin: "so-pin-87654321",
            user_pin: "user-pin-1234",
        })
    }

    /// SoftHSM2's tool initialises the token of any module.
    fn initialised(self) -> io::Result<Self> {
        let mut util = Command::new("softhsm2-util");
        util.arg("--module")
            .arg(&self.module)
            .args(["--init-token", "--free", "--label", self.label])
            .args(["--so-pin", self.so_pin, "--pin", self.user_pin]);
        self.run(util)?;
        Ok(self)
    }

    /// Runs a tool that initialises the token.
    fn run(&self, mut tool: Command) -> io::Result<()> {
        let output = tool.envs(&self.environment).output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{}: {said}", tool.get_program().display())))
    }
}
