//! Passphrases of private keys: from a file, from the environment, or asked for at a terminal.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The variable that may hold the passphrase.
pub const VARIABLE: &str = "VIGIL_PASSPHRASE";
const FILE_BYTES: u64 = 4096;

/// Where the passphrase comes from.
#[derive(Clone, Debug, Default)]
pub struct Passphrase {
    file: Option<PathBuf>,
    ask_for_new: bool,
}

impl Passphrase {
    /// From the first line of this file, if one is given, or else from the environment. A new key is encrypted when
    /// there is such a passphrase, or when `ask_for_new` says to ask for one.
    pub fn new(file: Option<PathBuf>, ask_for_new: bool) -> Self {
        Self { file, ask_for_new }
    }

    /// What to encrypt a new key with, if with anything.
    pub fn for_new_key(&self) -> Result<Option<String>> {
        if let Some(given) = self.given()? {
            return Ok(Some(given));
        }
        if !self.ask_for_new {
            return Ok(None);
        }
        if !std::io::stdin().is_terminal() {
            bail!("there is no terminal to ask for a passphrase; give --passphrase-file or set {VARIABLE}");
        }
        let first = rpassword::prompt_password("New passphrase: ").context("cannot read the passphrase")?;
        if first != rpassword::prompt_password("Once more: ").context("cannot read the passphrase")? {
            bail!("the two passphrases differ; begin again");
        }
        if first.is_empty() {
            bail!("an empty passphrase protects nothing")
        }
        Ok(Some(first))
    }

    /// What to open the key in that file with.
    pub fn for_key(&self, path: &Path) -> Result<String> {
        if let Some(given) = self.given()? {
            return Ok(given);
        }
        if !std::io::stdin().is_terminal() {
            bail!("{} is encrypted; give --passphrase-file or set {VARIABLE}", path.display());
        }
        rpassword::prompt_password(format!("Passphrase of {}: ", path.display()))
            .context("cannot read the passphrase")
    }

    fn given(&self) -> Result<Option<String>> {
        let text = match &self.file {
            Some(path) => {
                let bytes = crate::files::read(path, FILE_BYTES)?;
                let text = String::from_utf8(bytes).ok();
                text.with_context(|| format!("{} is not a text", path.display()))?
            }
            None => match std::env::var(VARIABLE) {
                Ok(text) => text,
                Err(std::env::VarError::NotPresent) => return Ok(None),
                Err(error) => return Err(error).context(VARIABLE),
            },
        };
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            bail!("the passphrase is empty, which protects nothing");
        }
        Ok(Some(line.to_owned()))
    }
}
