//! Runs a hook in a sandbox. The updater starts itself anew as `vigil-updaterd --run-hook`, which shuts itself in and
//! then becomes the hook's program: it runs as the user that the configuration names, in no group but that user's own, may
//! write only where the configuration says, gains no privileges, opens AF_UNIX sockets only, and has nothing open but the
//! image as its standard input. Landlock alone would not do: it stops neither chmod nor connecting to a socket.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, RulesetStatus,
};
use nix::unistd::{Gid, Uid, User, setgid, setgroups, setuid};

use crate::config::HookConfig;

/// Where every program may write.
const HARMLESS: [&str; 1] = ["/dev/null"];

/// What runs the hook's program on the image at `payload`.
pub fn command(hook: &HookConfig, payload: &Path) -> io::Result<Command> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--run-hook").arg("--user").arg(&hook.user);
    for path in &hook.writes {
        command.arg("--writes").arg(path);
    }
    command.arg("--").args(&hook.command);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("VIGIL_IMAGE", &hook.image)
        .current_dir("/")
        .stdin(vigil_durable::open(payload, File::options().read(true))?);
    Ok(command)
}

/// Shuts this process in and becomes `command`. Comes back only when that fails.
pub fn become_hook(user: &str, writes: &[PathBuf], command: &[String]) -> String {
    let Some((program, arguments)) = command.split_first() else { return "no command".to_owned() };
    // What its user may not even look at is opened before it is that user.
    let ready = close_inherited().and_then(|()| rules(writes)).and_then(|rules| {
        become_user(user)?;
        shut_in(rules)
    });
    if let Err(why) = ready {
        return why;
    }
    format!("{program}: {}", Command::new(program).args(arguments).exec())
}

/// Whatever whoever started the updater has left open is none of the hook's business.
fn close_inherited() -> Result<(), String> {
    let entries = std::fs::read_dir("/proc/self/fd").map_err(|error| format!("/proc/self/fd: {error}"))?;
    let open: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // One of them was the directory's own.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

fn become_user(name: &str) -> Result<(), String> {
    let (uid, gid) = match name.parse() {
        Ok(number) => {
            let user = User::from_uid(Uid::from_raw(number)).ok().flatten();
            (Uid::from_raw(number), user.map_or(Gid::from_raw(number), |user| user.gid))
        }
        Err(_) => {
            let user = User::from_name(name).map_err(|error| format!("user {name}: {error}"))?;
            let user =
                user.ok_or_else(|| format!("user {name}: there is none of that name on this system"))?;
            (user.uid, user.gid)
        }
    };
    if uid == Uid::effective() {
        return Ok(());
    }
    setgroups(&[])
        .and_then(|()| setgid(gid))
        .and_then(|()| setuid(uid))
        .map_err(|error| format!("cannot become the user {name}: {error}"))
}

fn failed(error: RulesetError) -> String {
    format!("the sandbox could not be made: {error}")
}

fn rules(writes: &[PathBuf]) -> Result<RulesetCreated, String> {
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
    Ok(ruleset)
}

fn shut_in(ruleset: RulesetCreated) -> Result<(), String> {
    // This sets no_new_privs as well.
    let status = ruleset.restrict_self().map_err(failed)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err("the sandbox needs a kernel with Landlock (CONFIG_SECURITY_LANDLOCK, 5.13)".to_owned());
    }
    Ok(())
}
