//! Where the TPM is: the TCTI (TPM Command Transmission Interface), as one string of a configuration.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use keyd_core::{Failure, Reason};
use serde::Deserialize;
use tss_esapi::tcti_ldr::{DeviceConfig, NetworkTPMConfig, TctiNameConf};

/// Longest host name taken, in bytes (RFC 1035 §2.3.4).
const HOST_LIMIT: usize = 253;

/// A TCTI that keyd uses: `device:/dev/tpmrm0`, or `swtpm:host=127.0.0.1,port=2321` for a software TPM, whose
/// control channel is the port after.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Tcti {
    text: String,
    conf: TctiNameConf,
}

impl Tcti {
    /// As the TSS library takes it.
    pub(crate) fn conf(&self) -> TctiNameConf {
        self.conf.clone()
    }

    /// Whether nothing stands between keyd and the TPM that would flush what an earlier process left loaded, and
    /// nobody else can be connected meanwhile.
    pub(crate) const fn is_exclusive(&self) -> bool {
        matches!(self.conf, TctiNameConf::Swtpm(_))
    }
}

impl FromStr for Tcti {
    type Err = Failure;

    /// # Errors
    /// [`Reason::BadConfig`] for anything that is not one of the two forms in full.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let conf = match text.split_once(':') {
            Some(("device", path)) => device(path),
            Some(("swtpm", options)) => swtpm(options),
            _ if text == "device" => device(""),
            _ => Err("it is neither device:PATH nor swtpm:host=HOST,port=PORT"),
        };
        let refused = |why: &str| {
            let usual = "device:/dev/tpmrm0 is the usual one";
            Failure::new(Reason::BadConfig, format!("cannot use the TCTI {text:?}: {why}; {usual}"))
        };
        Ok(Self { text: text.to_owned(), conf: conf.map_err(refused)? })
    }
}

impl TryFrom<String> for Tcti {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn device(path: &str) -> Result<TctiNameConf, &'static str> {
    // Without a path the library takes /dev/tpm0, past the kernel's resource manager.
    if !PathBuf::from(path).is_absolute() || path.contains('\0') {
        return Err("it names no device by its absolute path");
    }
    DeviceConfig::from_str(path).map(TctiNameConf::Device).map_err(|_| "the path is not one")
}

fn swtpm(options: &str) -> Result<TctiNameConf, &'static str> {
    let (mut host, mut port) = (None, None);
    for option in options.split(',') {
        match option.split_once('=') {
            Some(("host", value)) if host.is_none() && is_host(value) => host = Some(value),
            Some(("port", value)) if port.is_none() => {
                // One more port is needed for the control channel.
                let number = value.parse::<u16>().ok().filter(|n| (1..u16::MAX).contains(n));
                port = Some(number.ok_or("the port is no number from 1 to 65534")?);
            }
            // The library would read this as localhost, port 2321, without a word.
            Some(("path", _)) => return Err("a Unix socket is not supported, give host and port"),
            _ => return Err("the options are not host=HOST,port=PORT"),
        }
    }
    let (Some(host), Some(port)) = (host, port) else {
        return Err("it needs both host=HOST and port=PORT");
    };
    NetworkTPMConfig::from_str(&format!("host={host},port={port}"))
        .map(TctiNameConf::Swtpm)
        .map_err(|_| "the host is no host name")
}

fn is_host(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':');
    (1..=HOST_LIMIT).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_and_a_software_tpm_are_taken_as_written() {
        for text in
            ["device:/dev/tpmrm0", "swtpm:host=127.0.0.1,port=2321", "swtpm:port=4000,host=tpm.example"]
        {
            assert_eq!(text.parse::<Tcti>().unwrap().to_string(), text);
        }
        let tcti: Tcti = "swtpm:host=127.0.0.1,port=4000".parse().unwrap();
        assert_eq!(tcti.conf(), TctiNameConf::from_str("swtpm:host=127.0.0.1,port=4000").unwrap());
    }

    #[test]
    fn what_the_library_would_guess_at_is_refused() {
        for (text, why) in [
            ("device", "absolute path"),
            ("device:", "absolute path"),
            ("device:tpmrm0", "absolute path"),
            ("swtpm", "neither device:PATH"),
            ("swtpm:", "host=HOST,port=PORT"),
            ("swtpm:path=/run/swtpm.sock", "Unix socket is not supported"),
            ("swtpm:host=127.0.0.1", "needs both"),
            ("swtpm:host=127.0.0.1,port=65535", "65534"),
            ("swtpm:host=127.0.0.1,port=1,port=2", "options"),
            ("swtpm:host=a b,port=1", "options"),
            ("tabrmd", "neither device:PATH"),
            ("", "neither device:PATH"),
        ] {
            let failure = text.parse::<Tcti>().unwrap_err();
            assert_eq!(failure.reason, Reason::BadConfig);
            assert!(failure.message.contains(why), "{text:?}: {failure}");
            assert!(failure.message.contains("device:/dev/tpmrm0"), "{failure}");
        }
    }
}
