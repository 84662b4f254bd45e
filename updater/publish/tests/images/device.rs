//! A repository, and a device whose updater runs in this process: it is asked and fed as `vigild` would over its socket.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use vigil_publish::init::{Init, init};
use vigil_publish::keyring::Keyring;
use vigil_publish::passphrase::Passphrase;
use vigil_publish::release::{self, Release};
use vigil_publish::repository::Repository;
use vigil_updater::boot::FileBoot;
use vigil_updater::config::Config;
use vigil_updater::release::{Chunking, Index, InstallPolicy, target_name};
use vigil_updater::service::Updater;
use vigil_updater::slot::{Cutter, MapWriter};
use vigil_wire::{Fetch, Request, Response, State, UpdateStatus};

const PRODUCT: &str = "bar";
/// Turns after which it is taken for endless.
const TURNS: u64 = 5_000;

pub(crate) struct Vendor {
    directory: PathBuf,
    repository: Repository,
    ring: Keyring,
}

impl Vendor {
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let (repository, keys) = (directory.join("repo"), directory.join("keys"));
        let passphrase = Passphrase::default();
        let what = Init {
            directory: &repository,
            staged: None,
            keys: &keys,
            role_keys: vec![],
            thresholds: vec![],
            root_days: 365,
            lifetimes: vigil_publish::settings::Lifetimes::default(),
        };
        let (repository, _) = init(what, &passphrase, Timestamp::now())?;
        let ring = Keyring::open(&keys, &passphrase)?;
        Ok(Self { directory: directory.to_owned(), repository, ring })
    }

    pub(crate) fn publish(
        &mut self,
        sequence: u64,
        image: &[u8],
        chunking: Chunking,
        patches: usize,
    ) -> Result<()> {
        let path = self.directory.join("image");
        std::fs::write(&path, image)?;
        let release = Release {
            product: PRODUCT.to_owned(),
            version: semver::Version::new(sequence, 0, 0),
            sequence,
            hardware: vec!["r1".to_owned()],
            images: vec![("rootfs".to_owned(), path)],
            install: InstallPolicy::Automatic,
            allow_lower: false,
            level: 3,
            format: Some(2),
            chunking: Some(chunking),
            patches,
        };
        release::add(&mut self.repository, &release)?;
        self.repository.settle(&self.ring, Timestamp::now())?;
        Ok(())
    }
}

impl Vendor {
    /// Signs a release again with another index of its patch.
    pub(crate) fn change_patch_index(&mut self, sequence: u64, change: impl Fn(&mut Vec<u8>)) -> Result<()> {
        self.change(sequence, |image, blobs| change_blob(&mut image["patches"][0]["index"], blobs, change))
    }

    /// Signs a release again with other leaves, of the same length.
    pub(crate) fn change_leaves(&mut self, sequence: u64, change: impl Fn(&mut [u8])) -> Result<()> {
        self.change(sequence, |image, blobs| {
            let mut hashes = Vec::new();
            let index = std::fs::read(blobs.join(image["index"]["sha256"].as_str().context("no index")?))?;
            let units = Index::parse(&index)?.units().to_vec();
            change_blob(&mut image["leaves"], blobs, |leaves| {
                for unit in &units {
                    let leaf = &mut leaves[unit.leaf_offset as usize..][..unit.leaf_length as usize];
                    change(leaf);
                    hashes.push(Sha256::digest(leaf));
                }
            })?;
            change_blob(&mut image["index"], blobs, |index| {
                for (entry, hash) in index[28..].chunks_exact_mut(80).zip(hashes) {
                    entry[16..48].copy_from_slice(&hash);
                }
            })
        })
    }

    fn change(&mut self, sequence: u64, change: impl FnOnce(&mut Value, &Path) -> Result<()>) -> Result<()> {
        let name = target_name(PRODUCT, &format!("{sequence}.0.0"));
        let mut manifest: Value = serde_json::from_slice(&self.repository.read_target(&name)?)?;
        change(&mut manifest["images"][0], &self.repository.directory().join("blobs"))?;
        let custom = self
            .repository
            .targets()
            .find(|target| *target.1 == name)
            .and_then(|target| target.2.custom.clone());
        self.repository.put_target(&name, &serde_json::to_vec(&manifest)?, custom)?;
        self.repository.settle(&self.ring, Timestamp::now())?;
        Ok(())
    }
}

/// Has a part of a manifest name a blob with another content.
fn change_blob(part: &mut Value, blobs: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let mut content = std::fs::read(blobs.join(part["sha256"].as_str().context("there is no such part")?))?;
    change(&mut content);
    let sha256 = HEXLOWER.encode(&Sha256::digest(&content));
    std::fs::write(blobs.join(&sha256), &content)?;
    *part = serde_json::json!({ "size": content.len(), "sha256": sha256 });
    Ok(())
}

/// Something that happens to the device at a turn.
#[derive(Clone, Debug)]
pub(crate) enum Mishap {
    /// The updater is killed and starts again.
    Kill,
    /// What was being fetched is lost.
    Drop,
    /// Bytes of the running slot change.
    Damage(usize, Vec<u8>),
}

/// What is on its way: of which need, from where on, and the bytes; none of a file that is not there.
type Coming = (u64, u64, Option<Vec<u8>>);

pub(crate) struct Device {
    directory: PathBuf,
    repository: PathBuf,
}

impl Device {
    pub(crate) fn new(directory: &Path, running: &[u8], target: &[u8], slot_bytes: u64) -> Result<Self> {
        let device = Self { directory: directory.join("device"), repository: directory.join("repo") };
        std::fs::create_dir_all(device.path("boot"))?;
        for (slot, content) in [("A", running), ("B", target)] {
            std::fs::write(device.path(slot), content)?;
            File::options().write(true).open(device.path(slot))?.set_len(slot_bytes)?;
        }
        std::fs::write(device.path("boot/boot.env"), "BOOT_ORDER=A\nBOOT_A_LEFT=3\nBOOT_B_LEFT=0\n")?;
        FileBoot::new(&device.path("boot")).power_on("boot-1")?;
        std::fs::write(
            device.path("vigil.toml"),
            format!("[device]\nid = \"room-1\"\ntenant = \"acme\"\nproduct = {PRODUCT:?}\n"),
        )?;
        let text = format!(
            "agent_config = {:?}\nstate = {:?}\nroot = {:?}\nreboot = [\"/bin/true\"]\n[boot]\nkind = \"file\"\n\
             directory = {:?}\n[[slots]]\nname = \"A\"\nparts = {{ rootfs = {:?} }}\n[[slots]]\nname = \"B\"\n\
             parts = {{ rootfs = {:?} }}\n",
            device.path("vigil.toml"),
            device.path("state"),
            device.repository.join("metadata/1.root.json"),
            device.path("boot"),
            device.path("A"),
            device.path("B"),
        );
        std::fs::write(device.path("updater.toml"), text)?;
        Ok(device)
    }

    /// Leaves nothing of it, for another one in its place.
    pub(crate) fn discard(self) -> Result<()> {
        Ok(std::fs::remove_dir_all(self.directory)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The map that an install would have left of what a slot holds.
    pub(crate) fn map(&self, slot: &str, content: &[u8], chunking: Chunking) -> Result<()> {
        let path = self.path(&format!("state/maps/{slot}-rootfs.map"));
        let (mut cutter, mut writer) = (Cutter::new(content, chunking), MapWriter::new(&path, chunking)?);
        while let Some(unit) = cutter.next_unit(None)? {
            writer.push(unit.leaf(), unit.digest())?;
        }
        Ok(writer.finish(cutter.image_sha256())?)
    }

    /// What the updater noted, a line each.
    pub(crate) fn events(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.path("state/events.jsonl"))?)
    }

    fn start(&self) -> Result<Updater> {
        Updater::open(Config::load(&self.path("updater.toml"))?, false)
    }

    /// Installs a release up to the restart, with what happens at which turn. Gives back what the target slot then begins with.
    pub(crate) fn install(
        &self,
        sequence: u64,
        mishaps: &[(u64, Mishap)],
        piece: usize,
        bytes: usize,
    ) -> Result<(Vec<u8>, UpdateStatus)> {
        let mut updater = self.start()?;
        let release = Some(target_name(PRODUCT, &format!("{sequence}.0.0")));
        let answer = updater.ask(Request::Install { envelope: None, release, reinstall: false }, &[]);
        ensure!(answer == Response::Done, "{answer:?}");
        let mut coming = None;
        for turn in 0..TURNS {
            for (_, mishap) in mishaps.iter().filter(|(at, _)| *at == turn) {
                match mishap {
                    Mishap::Kill => {
                        drop(updater);
                        updater = self.start()?;
                        coming = None;
                    }
                    Mishap::Drop => coming = None,
                    Mishap::Damage(place, bytes) => {
                        File::options()
                            .write(true)
                            .open(self.path("A"))?
                            .write_all_at(bytes, *place as u64)?;
                    }
                }
            }
            if updater.turn() {
                continue;
            }
            let Response::Status(status) = updater.ask(Request::Status, &[]) else { continue };
            match status.state {
                State::Failed => anyhow::bail!("{:?}", status.last_failure),
                State::Rebooting => {
                    let mut content = vec![0; bytes];
                    File::open(self.path("B"))?.read_exact_at(&mut content, 0)?;
                    return Ok((content, *status));
                }
                _ => {}
            }
            coming = match coming {
                Some(coming) => feed(&mut updater, coming, piece)?,
                None => match updater.ask(Request::Next, &[]) {
                    Response::Need(need) => {
                        let content = std::fs::read(self.repository.join(&need.path)).ok();
                        let range = content.map(|content| {
                            let begin = (need.offset as usize).min(content.len());
                            content[begin..(begin + need.length as usize).min(content.len())].to_vec()
                        });
                        Some((need.need, need.offset, range))
                    }
                    _ => None,
                },
            };
        }
        let events = self.events()?;
        let last: Vec<&str> = events.lines().rev().take(6).collect();
        anyhow::bail!("it does not end: {:?}, after {last:?}", updater.ask(Request::Status, &[]))
    }
}

/// Feeds a piece of what was asked for. What is left; none when the updater wants no more of it.
fn feed(updater: &mut Updater, (need, offset, content): Coming, piece: usize) -> Result<Option<Coming>> {
    let Some(mut content) = content else {
        updater
            .ask(Request::Feed { need, offset, fetch: Fetch::Missing, trouble: None, passed_over: 0 }, &[]);
        return Ok(None);
    };
    let rest = content.split_off(piece.min(content.len()));
    let fetch = if rest.is_empty() { Fetch::Last } else { Fetch::More };
    let feed = |offset| Request::Feed { need, offset, fetch, trouble: None, passed_over: 0 };
    let end = offset + content.len() as u64;
    let mut answer = updater.ask(feed(offset), &content);
    while answer == Response::Working {
        answer = updater.ask(feed(end), &[]);
    }
    match answer {
        Response::Continue => Ok(Some((need, end, Some(rest)))),
        Response::Done => Ok(None),
        other => Err(anyhow::anyhow!("{other:?}")).context("nothing is wrong with what was fetched"),
    }
}
