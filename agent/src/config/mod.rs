//! The configuration: the image's default file, and over it the overlay that was configured remotely.
//!
//! A damaged default stops the daemon with file, line and what would be right; a damaged overlay never does.

mod broker;
mod file;
mod overlay;
mod sections;
mod trial;
mod values;

use std::path::{Path, PathBuf};

pub use broker::Broker;
pub use sections::{
    Audit, Deadbands, Device, Health, Local, Log, LogLevel, Network, Outbox, Partner, Paths, Repository,
    Room, Sections,
};
pub use trial::{ChangeError, TakenUp, Trial, Trials};
pub(crate) use values::is_host;
pub use values::{BrokerUrl, ProxyUrl};

/// A configuration file has at most this many bytes.
pub const FILE_BYTES: u64 = 64 * 1024;

/// Why there is no configuration.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}: {source}; put one there, see packaging/vigil.toml", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// One line for each problem: `file:line: what is wrong; what would be right`.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

/// The effective configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Default and overlay, merged.
    pub sections: Sections,
    /// The overlay's version, 0 when there is none or it was ignored.
    pub overlay_version: u64,
    /// What was passed over, for the log and the operator.
    pub warnings: Vec<String>,
}

impl std::ops::Deref for Config {
    type Target = Sections;
    fn deref(&self) -> &Sections {
        &self.sections
    }
}

impl Config {
    /// Reads the default and merges the overlay, if there is one, over it.
    pub fn load(default_path: &Path, overlay_path: Option<&Path>) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: default_path.to_owned(), source };
        let bytes = vigil_durable::read_bounded(default_path, FILE_BYTES)
            .map_err(read)?
            .ok_or_else(|| read(std::io::ErrorKind::NotFound.into()))?;
        let shown = default_path.display().to_string();
        let default = file::parse(&shown, &bytes).map_err(ConfigError::Invalid)?;
        let mut config = Self { sections: default.sections, overlay_version: 0, warnings: Vec::new() };
        let Some(overlay_path) = overlay_path else { return Ok(config) };
        match overlay::apply(overlay_path, default.tree) {
            Ok(None) => {}
            Ok(Some((version, sections))) => {
                config.sections = sections;
                config.overlay_version = version;
            }
            Err(problems) => config.warnings.extend(problems.into_iter().map(|problem| {
                format!("{}: {problem}; the overlay is ignored, the default applies", overlay_path.display())
            })),
        }
        Ok(config)
    }

    /// Loads, and looks as well for the files that the configuration names. Returns the warnings.
    pub fn check(default_path: &Path, overlay_path: Option<&Path>) -> Result<Vec<String>, ConfigError> {
        let config = Self::load(default_path, overlay_path)?;
        let mut warnings = config.warnings.clone();
        let partners =
            config.network.partners.iter().map(|partner| ("network.partners.ca_file", &partner.ca_file));
        let files = [
            ("broker.ca_file", &config.broker.ca_file),
            ("broker.client_cert_file", &config.broker.client_cert_file),
            ("broker.password_file", &config.broker.password_file),
            ("broker.proxy_password_file", &config.broker.proxy_password_file),
            ("repository.ca_file", &config.repository.ca_file),
        ];
        for (key, file) in files.into_iter().chain(partners) {
            if let Some(file) = file
                && let Err(error) = std::fs::File::open(file)
            {
                warnings.push(format!(
                    "{key} = {}: {error}; put the file there or correct the path",
                    file.display()
                ));
            }
        }
        Ok(warnings)
    }

    /// The effective configuration as published on `config`: paths of secrets are in it, secrets never are.
    pub fn redacted(&self) -> serde_json::Value {
        // String keys and plain values only: this cannot fail.
        serde_json::to_value(&self.sections).unwrap_or_default()
    }

    /// The certificate that the broker is shown, if the file exists.
    pub fn client_cert_file(&self) -> PathBuf {
        self.broker
            .client_cert_file
            .clone()
            .unwrap_or_else(|| self.paths.state.join("identity").join("tls.crt"))
    }
}

#[cfg(test)]
mod tests;
