//! `vigil-tuf`: the trusted set as a command-line TUF client, as the public conformance suite drives it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use ureq::Agent;
use vigil_durable::Mode;
use vigil_tuf::{
    Fetched, MAX_ROOT_BYTES, MAX_STATED_BYTES, Output, Role, Search, Source, Stored, TrustedSet,
};

/// Largest target that is fetched, in bytes: it is held in memory until it is verified.
const MAX_TARGET_BYTES: u64 = 512 * 1024 * 1024;
/// Last `Output::TimeFloor`; not `.json`, for that is what metadata is called.
const FLOOR_FILE: &str = "time_floor";

/// Follows a TUF repository over HTTP and downloads targets from it
#[derive(Parser)]
#[command(
    name = "vigil-tuf",
    version,
    after_help = "Exit codes: 0 done, 1 failed or refused, 2 wrong usage."
)]
struct Cli {
    /// The directory of the trusted metadata
    #[arg(long, value_name = "DIR")]
    metadata_dir: PathBuf,
    /// Where the repository's metadata is
    #[arg(long, value_name = "URL")]
    metadata_url: Option<String>,
    /// A target to download; repeatable
    #[arg(long, value_name = "NAME")]
    target_name: Vec<String>,
    /// Where the repository's targets are
    #[arg(long, value_name = "URL")]
    target_base_url: Option<String>,
    /// Where downloaded targets are put, their names percent-encoded
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Longest that one file may take to come: a server that sends byte by byte must not hold the client for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trust a root, in an empty metadata directory; fetches nothing
    Init {
        /// The root's file, got in a way that can be trusted
        root: PathBuf,
    },
    /// Bring the trusted metadata up to date
    Refresh,
    /// Refresh, then download targets that are not there already
    Download,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vigil-tuf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Init { root } => init(&cli.metadata_dir, root),
        Command::Refresh => Client::open(cli)?.refresh(),
        Command::Download => {
            let mut client = Client::open(cli)?;
            let base = cli.target_base_url.as_deref().context("download needs --target-base-url")?;
            let into = cli.target_dir.as_deref().context("download needs --target-dir")?;
            ensure!(!cli.target_name.is_empty(), "download needs --target-name");
            client.refresh()?;
            cli.target_name.iter().try_for_each(|name| {
                client.download(name, base, into).with_context(|| format!("target {name}"))
            })
        }
    }
}

fn init(directory: &Path, root: &Path) -> Result<()> {
    let bytes = vigil_durable::read_bounded(root, MAX_ROOT_BYTES)
        .with_context(|| format!("cannot read {}", root.display()))?
        .with_context(|| format!("{} is not there", root.display()))?;
    TrustedSet::load(&bytes, Stored::default()).with_context(|| root.display().to_string())?;
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    write(&directory.join("root.json"), &bytes)
}

/// The trusted set, its store and the way to the repository.
struct Client {
    set: TrustedSet,
    store: PathBuf,
    url: String,
    http: Agent,
    /// The one time that everything is held against (section 5.1): what is slow does not expire on its way.
    began: Timestamp,
}

impl Client {
    fn open(cli: &Cli) -> Result<Self> {
        let store = cli.metadata_dir.clone();
        let read = |name: &str| -> Result<Option<Vec<u8>>> {
            let path = store.join(name);
            vigil_durable::read_bounded(&path, MAX_STATED_BYTES)
                .with_context(|| format!("cannot read {}", path.display()))
        };
        let Some(root) = read("root.json")? else {
            bail!("{} has no root.json; run `init` with a root that you trust first", store.display());
        };
        let floor = read(FLOOR_FILE)?.and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
        let stored = Stored {
            root: None,
            timestamp: read("timestamp.json")?,
            snapshot: read("snapshot.json")?,
            targets: read("targets.json")?,
            time_floor: floor,
        };
        let (set, dropped) = TrustedSet::load(&root, stored)?;
        for what in dropped {
            eprintln!("vigil-tuf: {what}");
        }
        let http = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(cli.timeout)))
            .http_status_as_error(false)
            .user_agent(concat!("vigil-tuf/", env!("CARGO_PKG_VERSION")))
            .build();
        let url = cli.metadata_url.clone().context("this needs --metadata-url")?;
        Ok(Self { set, store, url, http: http.into(), began: Timestamp::now() })
    }

    fn refresh(&mut self) -> Result<()> {
        loop {
            let before = self.set.version(Role::Root);
            self.set.begin_refresh();
            let result = self.bring();
            // One refresh follows a bounded number of roots, and may have ended under one that has expired.
            if self.set.version(Role::Root) == before || result.is_ok() && self.set.is_refreshed() {
                return result;
            }
        }
    }

    /// Brings whatever the set asks for.
    fn bring(&mut self) -> Result<()> {
        while let Some(request) = self.set.next_request() {
            let bytes = match request.source {
                Source::Store => {
                    vigil_durable::read_bounded(&self.store.join(&request.path), request.max_len)
                        .with_context(|| format!("cannot read {}", request.path))?
                }
                Source::Repository => self.fetch(
                    &format!("{}/{}", self.url.trim_end_matches('/'), request.path),
                    request.max_len,
                )?,
            };
            let fetched = bytes.as_deref().map_or(Fetched::Missing, Fetched::Bytes);
            for output in self.set.feed(fetched, self.began)? {
                self.keep(output)?;
            }
        }
        Ok(())
    }

    fn keep(&self, output: Output) -> Result<()> {
        match output {
            Output::Persist { role, bytes } => {
                write(&self.store.join(format!("{}.json", role.file_stem())), &bytes)
            }
            Output::Forget { role } => {
                let path = self.store.join(format!("{}.json", role.file_stem()));
                vigil_durable::remove("client.forget", &path)
                    .with_context(|| format!("cannot remove {}", path.display()))
            }
            Output::TimeFloor(floor) => write(&self.store.join(FLOOR_FILE), floor.to_string().as_bytes()),
        }
    }

    fn download(&mut self, name: &str, base: &str, into: &Path) -> Result<()> {
        self.set.begin_search(name, Search::Online)?;
        self.bring()?;
        let length = self.set.target(name).context("the repository does not list it")?.length;
        ensure!(length <= MAX_TARGET_BYTES, "{length} bytes are more than this client holds");
        let path = self.set.target_path(name).context("it has no hash that this client knows")?;
        fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
        let file = into.join(vigil_tuf::encoded(name));
        let there = vigil_durable::read_bounded(&file, length).ok().flatten();
        if there.is_some_and(|bytes| self.set.verify_target(name, &bytes).is_ok()) {
            return Ok(());
        }
        let url = format!("{}/{}", base.trim_end_matches('/'), vigil_tuf::encoded_path(&path));
        let bytes = self.fetch(&url, length)?.with_context(|| format!("{url} is not there"))?;
        self.set.verify_target(name, &bytes)?;
        write(&file, &bytes)
    }

    /// At most one byte more than `limit`, so that the set sees that it was passed. None where there is no such file:
    /// buckets say 403 for 404.
    fn fetch(&self, url: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let response = self.http.get(url).call().with_context(|| format!("cannot fetch {url}"))?;
        match response.status().as_u16() {
            200 => {}
            403 | 404 => return Ok(None),
            status => bail!("{url}: the server answers {status}"),
        }
        let mut bytes = Vec::new();
        let mut body = std::io::Read::take(response.into_body().into_reader(), limit + 1);
        std::io::Read::read_to_end(&mut body, &mut bytes).with_context(|| format!("cannot fetch {url}"))?;
        Ok(Some(bytes))
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    vigil_durable::write("client.file", path, bytes, Mode::Public)
        .with_context(|| format!("cannot write {}", path.display()))
}
