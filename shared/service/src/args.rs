//! The flags every service program takes.

use std::path::PathBuf;

use clap::Args;

use crate::config::{Key, Problems, Settings, Sources};

/// Configuration flags, the same for `lens-agent` and `lens-aggregator`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServiceArgs {
    /// TOML configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, as section.key=value; wins over file and environment. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Check the configuration, print every problem, and exit 0 or 2.
    #[arg(long)]
    pub check_config: bool,
    /// Print the effective configuration with where each value came from, and exit.
    #[arg(long)]
    pub print_config: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.into())),
        _ => Err(format!("{text:?} is not KEY=VALUE, such as harvest.interval_ms=1000")),
    }
}

impl ServiceArgs {
    /// Reads the configuration these flags, the environment and the file give.
    ///
    /// # Errors
    /// Every problem found.
    pub fn settings(&self, keys: &'static [Key], prefix: &str) -> Result<Settings, Problems> {
        let sources = Sources {
            file: self.config.clone(),
            environment: std::env::vars().collect(),
            flags: self.set.clone(),
        };
        Settings::load(keys, prefix, &sources)
    }
}
