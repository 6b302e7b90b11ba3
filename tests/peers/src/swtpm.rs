//! A software TPM (swtpm) with endorsement key certificates from a certificate authority of its own.
//!
//! A swtpm serves one connection at a time: a second one is accepted and then waits until the first is closed. It
//! lives on when its client leaves; what the client left loaded stays loaded.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::ports::neighbours;

/// How often a pair of ports that somebody else took meanwhile is given up for another.
const PORT_ATTEMPTS: u32 = 20;
/// How long a swtpm may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const POLL: Duration = Duration::from_millis(10);

/// A running swtpm, its state under a directory. Killed when dropped.
#[derive(Debug)]
pub struct Swtpm {
    dir: PathBuf,
    ca: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Swtpm {
    /// Makes a TPM with RSA-2048 and P-384 endorsement keys and their certificates under `dir`, issued by a
    /// certificate authority under `dir` too, and starts it. What lies there already is started as it is.
    ///
    /// # Errors
    /// The tools are missing (`swtpm`, `swtpm-tools`) or failed.
    pub fn start(dir: &Path) -> io::Result<Self> {
        Self::start_with_ca(dir, &dir.join("ca"))
    }

    /// As [`Swtpm::start`], with the certificate authority under `ca`, made at first use. TPMs that share one have
    /// the same [`Swtpm::ek_roots`].
    ///
    /// # Errors
    /// As [`Swtpm::start`].
    pub fn start_with_ca(dir: &Path, ca: &Path) -> io::Result<Self> {
        let (dir, ca) = (std::path::absolute(dir)?, std::path::absolute(ca)?);
        if !dir.join("state/tpm2-00.permall").exists() {
            manufacture(&dir, &ca)?;
        }
        let mut tpm = Self { dir, ca, port: 0, child: None };
        for _ in 0..PORT_ATTEMPTS {
            tpm.port = neighbours()?.0.local_addr()?.port();
            if tpm.launch()? {
                return Ok(tpm);
            }
        }
        Err(io::Error::other("swtpm found no two free neighbouring ports"))
    }

    /// The TCTI, as `swtpm:host=127.0.0.1,port=2321`.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// The port for commands; the control channel is the next one.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// PEM files of the certificate authority that issued the endorsement key certificates: root, then issuer.
    pub fn ek_roots(&self) -> Vec<PathBuf> {
        ["swtpm-localca-rootca-cert.pem", "issuercert.pem"].map(|file| self.ca.join(file)).into()
    }

    /// A command with this TPM for tpm2-tools (`TPM2TOOLS_TCTI`).
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("TPM2TOOLS_TCTI", self.tcti()).env("TSS2_LOG", "all+none");
        command
    }

    /// Makes a storage root key as tpm2-tools make a primary key, which is not exempt from dictionary-attack lockout.
    ///
    /// # Errors
    /// The tools failed.
    pub fn make_srk_with_tools(&self) -> io::Result<()> {
        self.run_tools(&[
            &["tpm2_createprimary", "-Q", "-C", "o", "-c", "srk"],
            &["tpm2_evictcontrol", "-Q", "-C", "o", "-c", "srk", "0x81000001"],
            &["tpm2_flushcontext", "-t"],
        ])
    }

    /// Has it go into dictionary-attack lockout, by a wrong password for a key that is none of keyd's.
    ///
    /// # Errors
    /// The tools failed.
    pub fn lock_out(&self) -> io::Result<()> {
        self.run_tools(&[
            &["tpm2_dictionarylockout", "-s", "-n", "1", "-t", "1000", "-l", "1000"],
            &["tpm2_createprimary", "-Q", "-C", "o", "-c", "p", "-p", "right"],
        ])?;
        let guess: &[&str] = &["tpm2_create", "-C", "p", "-P", "wrong", "-u", "u", "-r", "r"];
        if self.run_tools(&[guess]).is_ok() {
            return Err(io::Error::other("a wrong password was taken"));
        }
        self.run_tools(&[&["tpm2_flushcontext", "-t"]])
    }

    fn run_tools(&self, commands: &[&[&str]]) -> io::Result<()> {
        for command in commands {
            let Some((name, args)) = command.split_first() else { continue };
            let output = self.tool(name).args(args).current_dir(&self.dir).output()?;
            if !output.status.success() {
                return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
            }
        }
        Ok(())
    }

    /// Pulls the plug: no orderly shutdown. The state on disk stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a process that is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again (after [`Swtpm::stop`]) on the same ports, as a machine that boots.
    ///
    /// # Errors
    /// It did not start, or somebody else took the ports.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        if self.launch()? { Ok(()) } else { Err(io::Error::other("swtpm's ports are taken")) }
    }

    /// Starts the process and waits until it listens; false where it could not take its ports.
    fn launch(&mut self) -> io::Result<bool> {
        let pid_file = self.dir.join("pid");
        let _ = std::fs::remove_file(&pid_file);
        let log = std::fs::File::create(self.dir.join("swtpm.log"))?;
        let mut child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", self.dir.join("state").display()))
            .arg("--server")
            .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", self.port))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", self.port + 1))
            .arg("--pid")
            .arg(format!("file={}", pid_file.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        for _ in 0..START_LIMIT.as_millis() / POLL.as_millis() {
            if child.try_wait()?.is_some() {
                let said = std::fs::read_to_string(self.dir.join("swtpm.log"))?;
                let ports_taken = said.contains("Address already in use");
                return if ports_taken { Ok(false) } else { Err(io::Error::other(said)) };
            }
            // swtpm writes it once both ports are its own.
            if pid_file.exists() {
                self.child = Some(child);
                return Ok(true);
            }
            pause();
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(io::Error::other(format!("swtpm did not start; see {}/swtpm.log", self.dir.display())))
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the TPM's state, with a configuration that names nothing outside `dir` and `ca`.
fn manufacture(dir: &Path, ca: &Path) -> io::Result<()> {
    let state = dir.join("state");
    std::fs::create_dir_all(&state)?;
    std::fs::create_dir_all(ca)?;
    let (localca, options) = (dir.join("swtpm-localca.conf"), dir.join("swtpm-localca.options"));
    let setup = dir.join("swtpm_setup.conf");
    let ca = ca.display();
    std::fs::write(
        &localca,
        format!(
            "statedir = {ca}\nsigningkey = {ca}/signkey.pem\nissuercert = {ca}/issuercert.pem\n\
             certserial = {ca}/certserial\n"
        ),
    )?;
    std::fs::write(
        &options,
        "--tpm-manufacturer IBM\n--tpm-model swtpm-libtpms\n--tpm-version 2\n--platform-manufacturer keyd\n\
         --platform-version 1\n--platform-model test\n",
    )?;
    std::fs::write(
        &setup,
        format!(
            "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\n\
             create_certs_tool_options = {}\n",
            localca.display(),
            options.display()
        ),
    )?;
    let output = Command::new("swtpm_setup")
        .args([
            "--tpm2",
            "--ecc",
            "--create-ek-cert",
            "--create-platform-cert",
            "--lock-nvram",
            "--overwrite",
        ])
        .args(["--pcr-banks", "sha256,sha384", "--config"])
        .arg(&setup)
        .arg("--tpm-state")
        .arg(&state)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(io::Error::other(format!("swtpm_setup failed: {}", String::from_utf8_lossy(&said))))
}

#[allow(clippy::disallowed_methods, reason = "starting and stopping parts is not done on a tokio worker")]
fn pause() {
    std::thread::sleep(POLL);
}
