//! What the end-to-end tests, the benchmarks and the demo are made of: a device with two slots and a first stage, the
//! vendor's repository behind a file server, brokers, certificates. Real processes, real files, real sockets.

pub mod board;
pub mod broker;
pub mod courier;
pub mod device;
pub mod disk;
pub mod files;
pub mod fleet;
pub mod hostile;
pub mod image;
pub mod machine;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod room;
pub mod vendor;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vigil_updater::boot::{BootControl, BootOrder};

/// The directory of the binaries under test: $VIGIL_BINARIES, or cargo's of the profile that this was built in. Builds
/// these first, once.
pub fn binaries() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build() -> anyhow::Result<PathBuf> {
    if let Some(directory) = std::env::var_os("VIGIL_BINARIES") {
        return Ok(directory.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    // As tests/run builds them: another selection of packages would have other features, and build all anew.
    command.args(["build", "--quiet", "--workspace", "--exclude", "vigil-tests", "--bins"]);
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().context("cargo")?;
    if !status.success() {
        bail!("the binaries under test could not be built");
    }
    let own = std::env::current_exe()?;
    let directory = own
        .ancestors()
        .find(|path| path.join("vigild").is_file())
        .context("vigild is not beside this program; run it through cargo")?;
    Ok(directory.to_owned())
}

/// Looks until there is something to see, or the time is up.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= until {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Looks until what is asked gives the answer that is waited for, or the time is up: then the error says what it gave last.
pub fn wait_for_answer<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let mut last = String::new();
    wait_for(what, limit, || match ask() {
        Ok(found) => Some(found),
        Err(answer) => {
            last = answer;
            None
        }
    })
    .map_err(|error| error.context(format!("the last answer was: {last}")))
}

/// A TCP port on loopback that nobody listens on just now.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Writing boot variables where others use the lock of U-Boot's tools as well, which is one for the whole machine.
pub trait InTurn: BootControl {
    /// [`BootControl::write`], again while somebody else is writing.
    fn write_in_turn(&mut self, point: &str, order: &BootOrder) -> io::Result<()> {
        loop {
            match self.write(point, order) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                done => return done,
            }
        }
    }
}

impl<T: BootControl + ?Sized> InTurn for T {}
