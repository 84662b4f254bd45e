//! The vendor: keys, repository, releases; through `vigil-publish`, as a release engineer does it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::files::FileServer;

/// The product that everything here is for.
pub const PRODUCT: &str = "demo-bar";
/// The tenant.
pub const TENANT: &str = "acme";

/// A vendor with a repository behind a file server.
pub struct Vendor {
    directory: PathBuf,
    /// The server.
    pub files: FileServer,
}

impl Vendor {
    /// A new repository with one operator who may do everything.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let vendor =
            Self { directory: directory.to_owned(), files: FileServer::start(directory.join("repo"))? };
        vendor.publish(&["init"])?;
        let key = vendor.publish(&["key", "new", "operator"])?;
        let key =
            key.get("key").and_then(Value::as_str).context("vigil-publish names no public key")?.to_owned();
        vendor
            .set_operators(&[format!("name=olga,key={key},scopes=observe+operate+update+admin,devices=*")])?;
        Ok(vendor)
    }

    /// The directory of the repository.
    pub fn repository(&self) -> PathBuf {
        self.directory.join("repo")
    }

    /// The root that images bring.
    pub fn root(&self) -> PathBuf {
        self.repository().join("metadata/1.root.json")
    }

    /// The operator's private key.
    pub fn operator_key(&self) -> PathBuf {
        self.directory.join("keys/operator.pem")
    }

    /// Publishes another operators list.
    pub fn set_operators(&self, operators: &[String]) -> anyhow::Result<()> {
        let mut arguments = vec!["operators", "set", "--tenant", TENANT];
        for operator in operators {
            arguments.extend(["--operator", operator]);
        }
        self.publish(&arguments).map(drop)
    }

    /// Publishes a release.
    pub fn release(&self, version: &str, sequence: u64, image: &Path, policy: &str) -> anyhow::Result<Value> {
        self.release_with(version, sequence, image, policy, &[])
    }

    /// Publishes a release, with more arguments.
    pub fn release_with(
        &self,
        version: &str,
        sequence: u64,
        image: &Path,
        policy: &str,
        more: &[&str],
    ) -> anyhow::Result<Value> {
        let image = format!("rootfs={}", image.display());
        let sequence = sequence.to_string();
        let arguments = [
            "release",
            "add",
            "--product",
            PRODUCT,
            "--version",
            version,
            "--sequence",
            &sequence,
            "--hardware",
            "r1",
            "--image",
            &image,
            "--install-policy",
            policy,
            "--level",
            "3",
        ];
        self.publish(&[&arguments, more].concat())
    }

    /// Runs `vigil-publish` and gives back its JSON.
    pub fn publish(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::new(crate::binaries()?.join("vigil-publish"));
        command.args(arguments).arg("--json");
        if !matches!(arguments[0], "verify" | "show") {
            command.arg("--keys").arg(self.directory.join("keys"));
        }
        if arguments[0] != "key" {
            command.arg("--repo").arg(self.repository());
        }
        let output = command.output()?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("vigil-publish {}: {}", arguments.join(" "), String::from_utf8_lossy(&said).trim());
        }
        serde_json::from_slice(&output.stdout).context("vigil-publish prints no JSON")
    }
}
