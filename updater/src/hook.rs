//! Runs a hook in a sandbox. The updater starts itself anew as `vigil-updaterd --run-hook`, which shuts itself in and
//! then becomes the hook's program: it may read everything and write only where the configuration says, gains no
//! privileges, opens AF_UNIX sockets only, and gets the image as its standard input.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus,
};

use crate::config::HookConfig;

/// Where every program may write.
const HARMLESS: [&str; 1] = ["/dev/null"];

/// What runs the hook's program on the image at `payload`.
pub fn command(hook: &HookConfig, payload: &Path) -> io::Result<Command> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--run-hook");
    for path in &hook.writes {
        command.arg("--writes").arg(path);
    }
    command.arg("--").args(&hook.command);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("VIGIL_IMAGE", &hook.image)
        .current_dir("/")
        .stdin(File::open(payload)?);
    Ok(command)
}

/// Shuts this process in and becomes `command`. Comes back only when that fails.
pub fn become_hook(writes: &[PathBuf], command: &[String]) -> String {
    let Some((program, arguments)) = command.split_first() else { return "no command".to_owned() };
    if let Err(why) = shut_in(writes) {
        return why;
    }
    format!("{program}: {}", Command::new(program).args(arguments).exec())
}

fn shut_in(writes: &[PathBuf]) -> Result<(), String> {
    let failed = |error: RulesetError| format!("the sandbox could not be made: {error}");
    let abi = ABI::V3;
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))
        .and_then(Ruleset::create)
        .map_err(failed)?
        .add_rule(PathBeneath::new(
            PathFd::new("/").map_err(|error| error.to_string())?,
            AccessFs::from_read(abi),
        ))
        .map_err(failed)?;
    for path in writes.iter().map(PathBuf::as_path).chain(HARMLESS.map(Path::new)) {
        let fd = PathFd::new(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let access = if path.is_dir() { AccessFs::from_all(abi) } else { AccessFs::from_file(abi) };
        ruleset = ruleset.add_rule(PathBeneath::new(fd, access)).map_err(failed)?;
    }
    // This sets no_new_privs as well.
    let status = ruleset.restrict_self().map_err(failed)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err("the sandbox needs a kernel with Landlock (CONFIG_SECURITY_LANDLOCK, 5.13)".to_owned());
    }
    Ok(())
}
