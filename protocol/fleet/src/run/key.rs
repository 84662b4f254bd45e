//! `key`: makes the operator's key, and shows the public half of one.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;
use vigil_protocol::keys::PublicKey;

use super::Context;
use crate::failure::Failure;
use crate::keys;
use crate::text::{Tone, json, line};

/// What to do with a key.
#[derive(Subcommand)]
pub enum Key {
    /// Make an operator's key in a new file
    New {
        /// The file, readable by its owner only
        file: PathBuf,
    },
    /// Show the public key and the key id of a key file
    Show {
        /// The file [default: the operator_key of the settings]
        file: Option<PathBuf>,
    },
}

/// Makes or shows one.
pub fn key(context: &Context, key: &Key) -> Result<(), Failure> {
    match key {
        Key::New { file } => new(context, file),
        Key::Show { file: Some(file) } => show(context, file),
        Key::Show { file: None } => show(context, context.settings.operator_key()?),
    }
}

fn show(context: &Context, file: &Path) -> Result<(), Failure> {
    let public = PublicKey::from(keys::load(file)?.verifying_key());
    if context.json {
        return json(&json!({"file": file, "public_key": public, "id": public.id()}));
    }
    line(&format!("public key   {public}"), Tone::Plain)?;
    line(&format!("id           {}", public.id()), Tone::Plain)
}

/// Makes a key and says what to do with its public half.
fn new(context: &Context, file: &Path) -> Result<(), Failure> {
    let public = PublicKey::from(keys::create(file)?.verifying_key());
    if context.json {
        return json(&json!({"file": file, "public_key": public, "id": public.id()}));
    }
    line(&format!("private key  {} (keep it; nobody else needs it)", file.display()), Tone::Plain)?;
    line(&format!("public key   {public}"), Tone::Plain)?;
    line(&format!("id           {}", public.id()), Tone::Plain)?;
    let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or("operator");
    line("\nHand this to the release engineer, over a channel that shows who you are:", Tone::Plain)?;
    line(
        &format!(
            "  vigil-publish operators set --repo DIR --keys DIR --tenant {} --operator 'name={name},key={public},scopes=observe+operate,devices=*'",
            context.settings.tenant.as_deref().unwrap_or("TENANT")
        ),
        Tone::Bold,
    )?;
    line("It replaces the tenant's list: repeat --operator for everybody who stays on it.", Tone::Plain)
}
