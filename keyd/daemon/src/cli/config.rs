//! `keyd config ...`.

use std::path::PathBuf;

use clap::Subcommand;
use keyd_core::Failure;
use keyd_unix::{ConfigFile, Output};
use serde_json::json;

use crate::config::{Config as File, DEFAULT_CONFIG};
use crate::devices::policy_source;
use crate::in_force::InForce;

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
    pub fn run(self, output: &Output) -> Result<(), Failure> {
        let Self::Check { config } = self;
        let file = File::read(&config)?;
        InForce::new(file.clone())?;
        file.tpm.as_ref().map(policy_source).transpose()?;
        let namespaces: Vec<_> = file.namespaces().map(|n| n.name.as_str()).collect();
        output.show(&json!({ "config": config, "valid": true, "namespaces": namespaces }), |_| {
            format!("{} is valid; namespaces: {}", config.display(), namespaces.join(", "))
        })
    }
}
