//! A program's configuration file.

use std::io;
use std::path::Path;

use keyd_core::config::Misfit;
use keyd_core::{Failure, Reason};
use serde::de::DeserializeOwned;

use crate::file;

/// Longest configuration file, in bytes.
const CONFIG_LIMIT: usize = 1 << 20; // 1 MiB

/// A configuration as its file has it: strict TOML, whose parts must go together.
pub trait ConfigFile: DeserializeOwned {
    /// Whether its parts go together.
    ///
    /// # Errors
    /// Those which do not.
    fn check(&self) -> Result<(), Misfit>;

    /// Takes the file's name and text, where what is found wrong later is to name its line too.
    fn keep_source(&mut self, _file: &str, _text: &str) {}

    /// Reads and checks a file. It blocks on the disk.
    ///
    /// # Errors
    /// [`Reason::BadConfig`] naming file, line and key.
    fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let text = file::read(path, CONFIG_LIMIT)
            .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other))
            .map_err(|e| {
                Failure::new(Reason::BadConfig, format!("{name}: cannot read the configuration: {e}"))
            })?;
        Self::parse(&name, &text)
    }

    /// Checks a text that came from `file`.
    ///
    /// # Errors
    /// [`Reason::BadConfig`] naming file, line and key.
    fn parse(file: &str, text: &str) -> Result<Self, Failure> {
        let mut config: Self = keyd_core::config::parse(file, text)?;
        config.check().map_err(|misfit| misfit.in_file(file, text))?;
        config.keep_source(file, text);
        Ok(config)
    }
}
