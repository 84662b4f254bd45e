//! `vigil` at `vigil-updaterd`'s own socket, for when the network or `vigild` is gone: installs from a directory such as
//! a USB stick, and takes an install in hand. The updater verifies every byte as if it came from the network.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use vigil_text::Sentence;
use vigil_wire::{
    BLOB_BYTES, Control, Decoder, Fetch, FrameError, Need, Request, Response, State, Trouble, UpdateStatus,
    WIRE_VERSION, encode,
};

/// Reading a slot back takes long, but is done in steps between two answers.
const ANSWER: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is tried to find the updater again: for ten seconds.
const RECONNECTS: u32 = 50;
/// A command's envelope at most.
const ENVELOPE_BYTES: u64 = 64 * 1024;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum UpdaterError {
    /// No daemon.
    #[error("cannot reach vigil-updaterd at {0}: {1}; is it running? (systemctl status vigil-updaterd)")]
    Unreachable(PathBuf, io::Error),
    /// The connection broke, or what came is no answer.
    #[error("vigil-updaterd: {0}")]
    Connection(#[from] io::Error),
    /// What came is no answer.
    #[error("vigil-updaterd: {0}")]
    Frame(#[from] FrameError),
    /// An answer to something else.
    #[error("vigil-updaterd gave an answer that does not fit: {0}")]
    Unexpected(&'static str),
    /// It refused.
    #[error("{message} ({code})")]
    Refused {
        /// The stable code.
        code: String,
        /// For people.
        message: Sentence,
    },
    /// The directory is no repository, or holds no release for this device.
    #[error("{0}")]
    Directory(String),
}

impl UpdaterError {
    /// Whether somebody else may do it.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "not_permitted")
    }
}

/// A connection to the updater.
#[derive(Debug)]
pub struct Updater {
    socket: PathBuf,
    stream: UnixStream,
    decoder: Decoder,
}

/// What to install from a directory.
#[derive(Clone, Debug)]
pub struct Install {
    /// The directory that holds `metadata/`, `targets/` and `blobs/`.
    pub from: PathBuf,
    /// The release's version; the newest in the directory without it.
    pub release: Option<semver::Version>,
    /// A file with an operator's signed `update.install`.
    pub command: Option<PathBuf>,
    /// Also when the release runs already.
    pub reinstall: bool,
}

impl Updater {
    /// Connects and greets.
    pub fn connect(socket: &Path) -> Result<Self, UpdaterError> {
        let stream = UnixStream::connect(socket)
            .and_then(|stream| stream.set_read_timeout(Some(ANSWER)).map(|()| stream))
            .map_err(|error| UpdaterError::Unreachable(socket.to_owned(), error))?;
        let mut updater = Self { socket: socket.to_owned(), stream, decoder: Decoder::default() };
        match updater.ask(&Request::Hello { version: WIRE_VERSION }, &[])? {
            Response::Hello { .. } => Ok(updater),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&mut self, request: &Request, blob: &[u8]) -> Result<Response, UpdaterError> {
        // Who is turned away is told so before anything of his is read: the refusal is what went wrong, not the broken pipe.
        let written = self.stream.write_all(&encode(request, blob)?);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.decoder.take::<Response>()? {
                Some((Response::Refused { code, message }, _)) => {
                    return Err(UpdaterError::Refused { code, message });
                }
                Some((response, _)) => return Ok(response),
                None => {}
            }
            let wanted = self.decoder.wanted()?.min(buffer.len());
            let count = match (self.stream.read(&mut buffer[..wanted]), &written) {
                (Ok(count), _) if count > 0 => count,
                (_, Err(error)) => return Err(io::Error::new(error.kind(), error.to_string()).into()),
                (Ok(_), Ok(())) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                (Err(error), Ok(())) => return Err(error.into()),
            };
            self.decoder.push(&buffer[..count])?;
        }
    }

    /// How it stands.
    pub fn status(&mut self) -> Result<UpdateStatus, UpdaterError> {
        match self.ask(&Request::Status, &[])? {
            Response::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes the install under way in hand, by an operator's envelope or as root.
    pub fn control(&mut self, control: Control, envelope: Option<&Path>) -> Result<(), UpdaterError> {
        let envelope = envelope.map(read_envelope).transpose()?;
        self.ask(&Request::Control { control, envelope }, &[]).map(drop)
    }

    /// Has the updater forget the audit log's checkpoint, as root who has looked into what became of the log.
    pub fn forget_witness(&mut self) -> Result<(), UpdaterError> {
        self.ask(&Request::ForgetWitness, &[]).map(drop)
    }

    /// Has it forget what time it is at least.
    pub fn forget_time(&mut self) -> Result<(), UpdaterError> {
        self.ask(&Request::ForgetTime, &[]).map(drop)
    }

    /// Installs from a directory until the updater restarts the device, or gives up. `watch` sees every change.
    pub fn install(
        &mut self,
        install: &Install,
        mut watch: impl FnMut(&UpdateStatus),
    ) -> Result<UpdateStatus, UpdaterError> {
        self.ask(&Request::Claim, &[])?;
        let product = self.status()?.product;
        let request = match &install.command {
            Some(file) => {
                Request::Install { envelope: Some(read_envelope(file)?), release: None, reinstall: false }
            }
            None => {
                let version = match &install.release {
                    Some(version) => version.clone(),
                    None => newest(&install.from, &product)?,
                };
                Request::Install {
                    envelope: None,
                    release: Some(format!("releases/{product}/{version}.json")),
                    reinstall: install.reinstall,
                }
            }
        };
        self.ask(&request, &[])?;
        let mut last = None;
        loop {
            let step = self.install_step(&install.from, &mut watch);
            let status = match step {
                Ok(status) => status,
                // The restart that it was all for ends the updater as well.
                Err(UpdaterError::Connection(error)) => {
                    if let Some(status) = last.filter(about_to_restart) {
                        return Ok(status);
                    }
                    self.reconnect(error)?
                }
                Err(error) => return Err(error),
            };
            watch(&status);
            if status.state == State::Rebooting || !status.state.is_under_way() {
                return Ok(status);
            }
            last = Some(status);
        }
    }

    /// Brings what is asked for, if anything is, and looks how it stands.
    fn install_step(
        &mut self,
        from: &Path,
        watch: &mut impl FnMut(&UpdateStatus),
    ) -> Result<UpdateStatus, UpdaterError> {
        match self.ask(&Request::Next, &[])? {
            Response::Need(need) => match self.bring(&need, from, watch) {
                // It was judged, and is asked for again after a pause, or given up: the status tells.
                Err(UpdaterError::Refused { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            },
            Response::Working | Response::Idle => std::thread::sleep(PAUSE),
            other => return Err(unexpected(&other)),
        }
        self.status()
    }

    /// The connection broke in the middle: what became of the install, if the updater is there again soon.
    fn reconnect(&mut self, broken: io::Error) -> Result<UpdateStatus, UpdaterError> {
        let socket = self.socket.clone();
        for _ in 0..RECONNECTS {
            std::thread::sleep(PAUSE);
            let Ok(mut again) = Self::connect(&socket) else { continue };
            again.ask(&Request::Claim, &[])?;
            let status = again.status()?;
            *self = again;
            return Ok(status);
        }
        Err(broken.into())
    }

    fn bring(
        &mut self,
        need: &Need,
        from: &Path,
        watch: &mut impl FnMut(&UpdateStatus),
    ) -> Result<(), UpdaterError> {
        let feed = |offset, fetch, trouble| Request::Feed {
            need: need.need,
            offset: need.offset + offset,
            fetch,
            trouble,
            passed_over: 0,
        };
        let trouble = |error: &io::Error| Some(Trouble { range: false, message: error.to_string().into() });
        let file = match open(from, &need.path) {
            Ok(file) => file,
            Err(error) => {
                let missing = error.kind() == io::ErrorKind::NotFound;
                let fetch = if missing { Fetch::Missing } else { Fetch::Failed };
                return self.ask(&feed(0, fetch, trouble(&error)), &[]).map(drop);
            }
        };
        let size = file.metadata()?.len().saturating_sub(need.offset);
        // One byte more than a limit is brought on, so that the updater sees that it was passed.
        let length = size.min(if need.exact { need.length } else { need.length + 1 });
        let mut offset = 0;
        let mut buffer = vec![0; BLOB_BYTES];
        loop {
            let part = &mut buffer[..(length - offset).min(BLOB_BYTES as u64) as usize];
            if let Err(error) = file.read_exact_at(part, need.offset + offset) {
                return self.ask(&feed(offset, Fetch::Failed, trouble(&error)), &[]).map(drop);
            }
            let is_last = offset + part.len() as u64 == length;
            let fetch = if is_last { Fetch::Last } else { Fetch::More };
            let mut answer = self.ask(&feed(offset, fetch, None), part)?;
            offset += part.len() as u64;
            while answer == Response::Working {
                answer = self.ask(&feed(offset, fetch, None), &[])?;
            }
            if answer != Response::Continue {
                return Ok(());
            }
            watch(&self.status()?);
        }
    }
}

/// Whether what comes next is the restart.
fn about_to_restart(status: &UpdateStatus) -> bool {
    matches!(status.state, State::Staged | State::Activating | State::Rebooting)
}

fn unexpected(response: &Response) -> UpdaterError {
    UpdaterError::Unexpected(response.name())
}

fn read_envelope(file: &Path) -> Result<String, UpdaterError> {
    let told = |what: &dyn std::fmt::Display| UpdaterError::Directory(format!("{}: {what}", file.display()));
    let bytes = vigil_durable::read_bounded(file, ENVELOPE_BYTES).map_err(|error| told(&error))?;
    String::from_utf8(bytes.ok_or_else(|| told(&"not there"))?).map_err(|_| told(&"not an envelope"))
}

/// A file of the directory. The updater names it as in a URL; it is a path inside all the same.
fn open(from: &Path, path: &str) -> io::Result<File> {
    let outside = || io::Error::new(io::ErrorKind::InvalidInput, "a path out of the directory");
    let path = percent_encoding::percent_decode_str(path).decode_utf8().map_err(|_| outside())?;
    let path = Path::new(path.as_ref());
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(outside());
    }
    let directory = File::open(from)?;
    // A stick is a stranger's: a link in it leads out of it, and a pipe answers when it likes, or never.
    let file = openat2(
        &directory,
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(|error| match error {
        Errno::LOOP => io::Error::new(io::ErrorKind::InvalidInput, "a link: copy the file itself"),
        error => error.into(),
    })?;
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// The newest release of the product that the directory seems to hold. What it holds the updater judges.
fn newest(from: &Path, product: &str) -> Result<semver::Version, UpdaterError> {
    let directory = from.join("targets/releases").join(product);
    let told = |what: String| UpdaterError::Directory(what);
    let entries = std::fs::read_dir(&directory).map_err(|error| {
        told(format!(
            "{}: {error}; give the directory that holds metadata/, targets/ and blobs/",
            directory.display()
        ))
    })?;
    let versions = entries.flatten().filter_map(|entry| version_of(&entry.file_name().to_string_lossy()));
    versions.max().ok_or_else(|| told(format!("{}: no release there", directory.display())))
}

/// The version in a manifest's file name, with or without its hash before it.
fn version_of(name: &str) -> Option<semver::Version> {
    let name = name.strip_suffix(".json")?;
    let hashed = name.split_once('.').filter(|(hash, _)| {
        hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    });
    semver::Version::parse(hashed.map_or(name, |(_, version)| version)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn who_is_turned_away_before_he_has_spoken_is_told_why_every_time() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("updater.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            for _ in 0..40 {
                let (mut stream, _) = listener.accept().unwrap();
                let refused = Response::Refused { code: "not_permitted".into(), message: "root only".into() };
                stream.write_all(&encode(&refused, &[]).unwrap()).unwrap();
            }
        });
        for _ in 0..40 {
            let error = Updater::connect(&socket).unwrap_err();
            assert!(error.is_permission(), "{error}");
        }
        server.join().unwrap();
    }

    #[test]
    fn a_stick_with_links_pipes_and_ways_out_gives_nothing_and_holds_nobody_up() {
        let stick = tempfile::tempdir().unwrap();
        let at = |name: &str| stick.path().join(name);
        std::fs::create_dir(at("metadata")).unwrap();
        std::fs::write(at("metadata/timestamp.json"), "{}").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("metadata/link.json")).unwrap();
        std::os::unix::fs::symlink("/etc", at("out")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("metadata/pipe.json"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let open = |path: &str| open(stick.path(), path).map(drop).map_err(|error| error.to_string());
        assert_eq!(open("metadata/timestamp.json"), Ok(()));
        for (path, why) in [
            ("metadata/link.json", "a link"),
            ("out/passwd", "a link"),
            ("metadata/pipe.json", "not a regular file"),
            ("metadata", "not a regular file"),
            ("../etc/passwd", "a path out of the directory"),
            ("/etc/passwd", "a path out of the directory"),
        ] {
            assert!(open(path).unwrap_err().contains(why), "{path}");
        }
    }

    #[test]
    fn a_release_is_found_with_and_without_its_hash_in_the_name() {
        let hash = "0123456789abcdef".repeat(4);
        let version = |text: &str| semver::Version::parse(text).unwrap();
        assert_eq!(version_of(&format!("{hash}.2.0.0.json")), Some(version("2.0.0")));
        assert_eq!(version_of("2.0.0-rc.1.json"), Some(version("2.0.0-rc.1")));
        for other in ["2.0.0", "readme.json", &format!("{hash}.json"), ".json", ""] {
            assert_eq!(version_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_release_is_the_one_of_the_highest_version_and_not_of_the_last_name() {
        let directory = tempfile::tempdir().unwrap();
        assert!(newest(directory.path(), "bar").unwrap_err().to_string().contains("metadata/"));
        let releases = directory.path().join("targets/releases/bar");
        std::fs::create_dir_all(&releases).unwrap();
        assert!(newest(directory.path(), "bar").unwrap_err().to_string().contains("no release"));
        for name in ["9.0.0.json", "10.0.0.json", "10.0.0-rc.1.json", "x"] {
            std::fs::write(releases.join(name), "").unwrap();
        }
        assert_eq!(newest(directory.path(), "bar").unwrap().to_string(), "10.0.0");
    }

    #[test]
    fn nothing_outside_the_directory_is_read() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["../secret", "%2e%2e/secret", "/etc/hostname", "a/../../b", "./a", "%ff"] {
            let error = open(directory.path(), path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }
}
