//! A release: its images as blobs, its manifest as a target.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use semver::Version;
use vigil_updater::release::{Chunking, Image, InstallPolicy, Manifest, Part, PatchParts, target_name};

use crate::repository::Repository;
use crate::units::{self, ImageParts};
use crate::{blobs, rebuild};

/// zstd's level when none is given: a release is compressed once and fetched by a fleet.
pub const DEFAULT_LEVEL: i32 = 19;
const DEFAULT_FORMAT: u32 = 2;

/// What to release.
#[derive(Clone, Debug)]
pub struct Release {
    /// The product it is for.
    pub product: String,
    /// Its version.
    pub version: Version,
    /// Greater than that of every release of the product before.
    pub sequence: u64,
    /// The hardware revisions it is for.
    pub hardware: Vec<String>,
    /// Part of a slot and the file of its image.
    pub images: Vec<(String, PathBuf)>,
    /// Who may start its install.
    pub install: InstallPolicy,
    /// Whether the sequence may be lower than, or equal to, one that was published.
    pub allow_lower: bool,
    /// zstd's level, 1 to 22.
    pub level: i32,
    /// How the images are cut in format 2; none for whichever way is the cheaper for each.
    pub chunking: Option<Chunking>,
    /// 2, or 1 for devices whose updater does not know leaves and patches. None: as the version was published before, or 2.
    pub format: Option<u32>,
    /// From how many of the newest releases of the product there are patches.
    pub patches: usize,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Added {
    /// The target's name.
    pub target: String,
    /// Its manifest.
    pub manifest: Manifest,
    /// Whether this very release was there before; then there is nothing to publish.
    pub unchanged: bool,
}

/// Puts blobs and manifest in place. Clients see them after [`Repository::settle`].
pub fn add(repository: &mut Repository, release: &Release) -> Result<Added> {
    let target = target_name(&release.product, &release.version.to_string());
    let published = manifests(repository)?;
    check_sequence(release, &target, &published)?;
    let before = published.iter().find(|(name, _)| *name == target).map(|(_, manifest)| manifest);
    let format = release.format.or(before.map(|before| before.format)).unwrap_or(DEFAULT_FORMAT);
    let mut manifest = Manifest {
        format,
        product: release.product.clone(),
        hardware: release.hardware.clone(),
        version: release.version.clone(),
        sequence: release.sequence,
        install: release.install,
        images: Vec::new(),
    };
    check_shape(release, &manifest)?;
    let progress = progress(release)?;
    for (name, path) in &release.images {
        progress.set_message(name.clone());
        let image = blobs::hash_file(path, &|_| ())?;
        let on_bytes = |count| progress.inc(count);
        let (directory, level) = (repository.directory(), release.level);
        let parts = if let Some(parts) = made_before(repository, format, &image, &published) {
            progress.inc(image.size);
            parts
        } else if format == 1 {
            blobs::make(directory, path, &image, level, &on_bytes)?
        } else {
            let chunking = release.chunking.map_or_else(|| units::chunking(path, image.size), Ok)?;
            units::make(directory, path, &image, chunking, level, &on_bytes)?
        };
        let patches = if format == 1 {
            Vec::new()
        } else {
            patches(repository, release, name, path, &image, &parts, &published)?
        };
        manifest.images.push(Image {
            name: name.clone(),
            size: image.size,
            sha256: image.sha256,
            index: parts.index,
            frames: parts.frames,
            leaves: parts.leaves,
            patches,
        });
    }
    progress.finish_and_clear();

    let bytes = serde_json::to_vec_pretty(&manifest)?;
    Manifest::parse(&bytes).context("devices would refuse this release")?;
    if let Some(before) = before {
        if *before != manifest {
            bail!(
                "version {} of {} was published with other content and devices may have it; release it as a new version",
                release.version,
                release.product
            );
        }
        return Ok(Added { target, manifest, unchanged: true });
    }
    repository.put_target(&target, &bytes, None)?;
    Ok(Added { target, manifest, unchanged: false })
}

/// Names and numbers that a device would refuse are told before the images are compressed, not after.
fn check_shape(release: &Release, manifest: &Manifest) -> Result<()> {
    let sha256 = "0".repeat(64);
    let part = Part { size: 1, sha256: sha256.clone() };
    let image = |(name, _): &(String, PathBuf)| Image {
        name: name.clone(),
        size: 1,
        sha256: sha256.clone(),
        index: part.clone(),
        frames: part.clone(),
        leaves: (manifest.format == 2).then(|| part.clone()),
        patches: Vec::new(),
    };
    let draft = Manifest { images: release.images.iter().map(image).collect(), ..manifest.clone() };
    Manifest::parse(&serde_json::to_vec(&draft)?).context("devices would refuse this release")?;
    Ok(())
}

/// The manifests of all releases in the repository, by target name.
pub fn manifests(repository: &Repository) -> Result<Vec<(String, Manifest)>> {
    let releases = repository.targets().filter(|(_, name, _)| name.starts_with("releases/"));
    releases
        .map(|(_, name, target)| {
            let manifest = Manifest::parse(&repository.read_file_of(name, target)?);
            Ok((name.clone(), manifest.with_context(|| format!("the target {name}"))?))
        })
        .collect()
}

fn check_sequence(release: &Release, target: &str, published: &[(String, Manifest)]) -> Result<()> {
    let others = published.iter().filter(|(name, other)| other.product == release.product && name != target);
    if let Some((_, highest)) = others.max_by_key(|(_, manifest)| manifest.sequence)
        && release.sequence <= highest.sequence
        && !release.allow_lower
    {
        bail!(
            "sequence {} is not above {} of the published version {}, so devices that confirmed that one would refuse \
             this; give --sequence {} or higher, or --allow-lower if that is meant",
            release.sequence,
            highest.sequence,
            highest.version,
            highest.sequence + 1
        );
    }
    Ok(())
}

/// The parts of the same image in a release that was published before: compressing it again would only cost time.
fn made_before(
    repository: &Repository,
    format: u32,
    image: &Part,
    published: &[(String, Manifest)],
) -> Option<ImageParts> {
    let same = published
        .iter()
        .filter(|(_, manifest)| manifest.format == format)
        .flat_map(|(_, manifest)| &manifest.images)
        .find(|other| other.sha256 == image.sha256 && other.size == image.size)?;
    let there = |part| blobs::is_there(repository.directory(), part);
    let is_all_there = there(&same.index) && there(&same.frames) && same.leaves.iter().all(there);
    is_all_there.then(|| ImageParts {
        index: same.index.clone(),
        frames: same.frames.clone(),
        leaves: same.leaves.clone(),
    })
}

/// Makes patches from the images of the newest releases before this one. They are put together again from the repository.
fn patches(
    repository: &Repository,
    release: &Release,
    name: &str,
    path: &Path,
    image: &Part,
    parts: &ImageParts,
    published: &[(String, Manifest)],
) -> Result<Vec<PatchParts>> {
    let mut before: Vec<_> = published
        .iter()
        .map(|(_, manifest)| manifest)
        .filter(|other| other.product == release.product && other.sequence < release.sequence)
        .collect();
    before.sort_by_key(|manifest| std::cmp::Reverse(manifest.sequence));
    let index = rebuild::index(repository.directory(), &parts.index)?;
    let Some(chunking) = index.chunking() else { return Ok(Vec::new()) };
    let mut patches: Vec<PatchParts> = Vec::new();
    for manifest in before.into_iter().take(release.patches) {
        let old = manifest.images.iter().find(|old| old.name == name && old.sha256 != image.sha256);
        let Some(old) = old.filter(|old| patches.iter().all(|patch| patch.from != old.sha256)) else {
            continue;
        };
        let file = rebuild::image(repository.directory(), old)
            .with_context(|| format!("version {}, which a patch is to start from", manifest.version))?;
        let bar = ProgressBar::new(image.size).with_style(style()?);
        bar.set_message(format!("{} -> {}", manifest.version, release.version));
        let on_bytes = |count| bar.inc(count);
        let made =
            units::make_patch(repository.directory(), file.path(), path, chunking, release.level, &on_bytes)?;
        bar.finish_and_clear();
        patches.extend(made);
    }
    Ok(patches)
}

/// Drawn on a terminal only.
fn progress(release: &Release) -> Result<ProgressBar> {
    let mut total = 0;
    for (_, path) in &release.images {
        total += path.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
    }
    Ok(ProgressBar::new(total).with_style(style()?))
}

fn style() -> Result<ProgressStyle> {
    Ok(ProgressStyle::with_template("{msg:18} {wide_bar} {bytes}/{total_bytes} {eta}")?)
}
