//! A release engineer's desk: a directory with a repository and keys, and the program to run there.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jiff::Timestamp;
use serde_json::Value;
use vigil_publish::verify::trusted_set;
use vigil_updater::release::FRAME_BYTES;

pub(crate) struct Desk {
    pub(crate) directory: tempfile::TempDir,
}

impl Desk {
    /// A repository as `init` makes it.
    pub(crate) fn new() -> Self {
        let desk = Self { directory: tempfile::tempdir().unwrap() };
        desk.good(&["init", "--repo", "repo", "--keys", "keys"]);
        desk
    }

    /// An empty one.
    pub(crate) fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vigil-publish"));
        command.current_dir(self.directory.path()).arg("--json").args(arguments).output().unwrap()
    }

    pub(crate) fn good(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap()
    }

    /// What a run prints for people.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vigil-publish"));
        let output = command.current_dir(self.directory.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The error of a run that fails.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["error"].as_str().unwrap().to_owned()
    }

    pub(crate) fn release_arguments<'a>(version: &'a str, sequence: &'a str) -> Vec<&'a str> {
        let rest = ["--hardware", "r1", "--hardware", "r2", "--image", "rootfs=image", "--level", "3"];
        let mut arguments = vec!["release", "add", "--repo", "repo", "--keys", "keys", "--product", "bar"];
        arguments.extend(["--version", version, "--sequence", sequence]);
        arguments.extend(rest);
        arguments
    }

    /// Two and a half frames that compress.
    pub(crate) fn write_image(&self, salt: u32) -> Vec<u8> {
        let words = FRAME_BYTES / 4 * 5 / 2;
        let image: Vec<u8> = (0..words).flat_map(|word| ((word / 7) ^ salt).to_le_bytes()).collect();
        std::fs::write(self.path("image"), &image).unwrap();
        image
    }

    pub(crate) fn target(&self, name: &str) -> Vec<u8> {
        let set = trusted_set(&self.path("repo"), Timestamp::now()).unwrap();
        let bytes = std::fs::read(self.path("repo/targets").join(set.target_path(name).unwrap())).unwrap();
        set.verify_target(name, &bytes).unwrap();
        bytes
    }

    pub(crate) fn blobs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("repo/blobs")).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}
