//! `keyd-agent config ...`.

use std::path::PathBuf;

use clap::Subcommand;
use keyd_core::Failure;
use keyd_unix::{ConfigFile, Output};
use serde_json::json;

use crate::config::{Config as File, DEFAULT_CONFIG};

/// The configuration file.
#[derive(Subcommand)]
pub enum Config {
    /// Check a configuration without starting anything
    Check {
        /// Configuration file
        #[arg(long, default_value = DEFAULT_CONFIG, value_name = "FILE")]
        config: PathBuf,
    },
}

impl Config {
    /// Reads and checks.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn run(self, output: &Output) -> Result<(), Failure> {
        let Self::Check { config } = self;
        let file = File::read(&config)?;
        let (trust_domain, server) = (file.trust_domain.as_str(), file.server_address.as_str());
        let value =
            json!({ "config": config, "valid": true, "trust_domain": trust_domain, "server": server });
        output.show(&value, |_| format!("{} is valid; {trust_domain} at {server}", config.display()))
    }
}
