//! The commands of docs/trust.md, one after the other.

use std::path::Path;
use std::process::Command;

use crate::desk::Desk;
use crate::device::Device;

#[test]
fn the_ceremonies_in_the_document_work_as_they_are_written() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/trust.md");
    let text = std::fs::read_to_string(document).unwrap();
    let commands: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert!(commands.len() > 40, "{commands:?}");
    let desk = Desk::empty();
    let program = Path::new(env!("CARGO_BIN_EXE_vigil-publish")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .current_dir(desk.directory.path())
        .env("PATH", format!("{}:{path}", program.display()))
        .env("VIGIL_PASSPHRASE", "correct horse")
        .stdin(std::process::Stdio::null())
        .args(["-exc", &commands.join("\n")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stdout));
    let mut device = Device::new(&desk.path("repo"));
    device.refresh().unwrap();
    assert_eq!(device.set.root().version, 4);
    assert!(!desk.path("repo.staged").exists());
}
