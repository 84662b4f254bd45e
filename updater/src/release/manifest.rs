//! The manifest: a TUF target `releases/{product}/{version}.json` that names everything else by size and hash.

use semver::Version;
use serde::{Deserialize, Serialize};

/// A manifest's bytes at most.
pub const MANIFEST_BYTES: u64 = 64 * 1024;
/// The formats that are read.
const FORMATS: std::ops::RangeInclusive<u32> = 1..=2;
const IMAGES: usize = 8;
const PATCHES: usize = 32;
const HARDWARE_REVISIONS: usize = 64;

/// Why a manifest was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON of a manifest.
    #[error("not a release manifest: {0}")]
    Malformed(String),
    /// A format of tomorrow.
    #[error(
        "release manifest of format {0}; this updater reads formats 1 and 2: install the release that brings a newer updater first"
    )]
    Format(u32),
    /// A value that no release can have.
    #[error("release manifest with an impossible {0}")]
    Value(&'static str),
}

/// Who may start the install of a release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstallPolicy {
    /// Only an operator's signed command.
    #[default]
    Operator,
    /// The device itself, when it learns of the release.
    Automatic,
}

/// A release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version: 1, or 2 when images have leaves.
    pub format: u32,
    /// The product it is for.
    pub product: String,
    /// The hardware revisions it is for.
    pub hardware: Vec<String>,
    /// For people.
    pub version: Version,
    /// For the floor: greater than that of every earlier release of the product.
    pub sequence: u64,
    /// Who may start its install.
    #[serde(default)]
    pub install: InstallPolicy,
    /// The images; all are installed or none.
    pub images: Vec<Image>,
}

/// One image of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Which part of a slot it goes to, e.g. `rootfs`.
    pub name: String,
    /// The image as it lies in the slot: bytes.
    pub size: u64,
    /// The image as it lies in the slot: SHA-256, lower-case hex.
    pub sha256: String,
    /// The frames' index.
    pub index: Part,
    /// The frames, one after the other.
    pub frames: Part,
    /// The leaves, one after the other: of every image in format 2, of none in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Part>,
    /// What brings a device here that holds one of these images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PatchParts>,
}

impl Image {
    /// All files of the repository that it names.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let patches = self.patches.iter().flat_map(|patch| [&patch.index, &patch.frames]);
        [&self.index, &self.frames].into_iter().chain(&self.leaves).chain(patches)
    }
}

/// A patch from one image to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchParts {
    /// SHA-256 of the image it starts from, lower-case hex.
    pub from: String,
    /// That image's bytes.
    pub from_size: u64,
    /// Its frames' index.
    pub index: Part,
    /// Its frames, one after the other.
    pub frames: Part,
}

/// A file of the repository, under the name of its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

/// A version's characters at most.
const VERSION_BYTES: usize = 64;

/// Whether `target` is the name of a release of `product`.
pub fn is_target_of(product: &str, target: &str) -> bool {
    let Some(version) = target.strip_prefix("releases/").and_then(|rest| rest.strip_prefix(product)) else {
        return false;
    };
    let version = version.strip_prefix('/').and_then(|rest| rest.strip_suffix(".json")).unwrap_or_default();
    version.len() <= VERSION_BYTES
        && semver::Version::parse(version).is_ok_and(|parsed| parsed.to_string() == version)
}

/// The name of a release's TUF target.
pub fn target_name(product: &str, version: &str) -> String {
    format!("releases/{product}/{version}.json")
}

/// Where a part lies in the repository, relative to its base.
pub fn blob_path(sha256: &str) -> String {
    format!("blobs/{sha256}")
}

impl Manifest {
    /// Reads a manifest and checks every value that a later step relies on.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        /// Read first, so that a format of tomorrow is named as such and not as an unknown field.
        #[derive(Deserialize)]
        struct Header {
            format: u32,
        }
        let malformed = |error: serde_json::Error| ManifestError::Malformed(vigil_text::json_fault(&error));
        if bytes.len() as u64 > MANIFEST_BYTES {
            return Err(ManifestError::Value("size"));
        }
        let header: Header = serde_json::from_slice(bytes).map_err(malformed)?;
        if !FORMATS.contains(&header.format) {
            return Err(ManifestError::Format(header.format));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let is = |holds: bool, what| if holds { Ok(()) } else { Err(ManifestError::Value(what)) };
        is(is_label(&self.product), "product")?;
        is(self.version.to_string().len() <= VERSION_BYTES, "length of the version")?;
        is((1..=HARDWARE_REVISIONS).contains(&self.hardware.len()), "number of hardware revisions")?;
        is(self.hardware.iter().all(|revision| is_label(revision)), "hardware revision")?;
        is((1..=IMAGES).contains(&self.images.len()), "number of images")?;
        for (position, image) in self.images.iter().enumerate() {
            is(is_label(&image.name), "image name")?;
            is(self.images[..position].iter().all(|other| other.name != image.name), "repeated image name")?;
            is(image.size > 0, "image size")?;
            is(is_sha256(&image.sha256), "image hash")?;
            is(is_sha256(&image.index.sha256) && is_sha256(&image.frames.sha256), "part hash")?;
            is(image.index.size <= super::INDEX_BYTES, "index size")?;
            is(image.leaves.is_some() == (self.format == 2), "leaves for its format")?;
            is(image.leaves.iter().all(|leaves| is_sha256(&leaves.sha256)), "part hash")?;
            is(image.patches.len() <= if self.format == 2 { PATCHES } else { 0 }, "number of patches")?;
            for patch in &image.patches {
                let hashes = [&patch.from, &patch.index.sha256, &patch.frames.sha256];
                is(hashes.into_iter().all(|hash| is_sha256(hash)), "patch hash")?;
                is(patch.index.size <= super::PATCH_INDEX_BYTES, "patch index size")?;
            }
        }
        Ok(())
    }
}

fn is_label(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> serde_json::Value {
        let hash = "0123456789abcdef".repeat(4);
        serde_json::json!({
            "format": 1, "product": "bar", "hardware": ["r1"], "version": "2.0.0", "sequence": 2,
            "images": [{"name": "rootfs", "size": 5, "sha256": hash,
                        "index": {"size": 80, "sha256": hash}, "frames": {"size": 9, "sha256": hash}}],
        })
    }

    fn parse(value: &serde_json::Value) -> Result<Manifest, ManifestError> {
        Manifest::parse(value.to_string().as_bytes())
    }

    #[test]
    fn a_release_waits_for_an_operator_unless_its_signed_manifest_says_otherwise() {
        assert_eq!(parse(&manifest()).unwrap().install, InstallPolicy::Operator);
        let mut automatic = manifest();
        automatic["install"] = "automatic".into();
        assert_eq!(parse(&automatic).unwrap().install, InstallPolicy::Automatic);
    }

    #[test]
    fn a_format_of_tomorrow_is_named_even_when_it_has_fields_of_tomorrow() {
        let mut tomorrow = manifest();
        tomorrow["format"] = 3.into();
        tomorrow["novelty"] = true.into();
        assert_eq!(parse(&tomorrow), Err(ManifestError::Format(3)));
    }

    #[test]
    fn leaves_and_patches_are_for_format_2_and_only_for_it() {
        let part = serde_json::json!({"size": 9, "sha256": "ab".repeat(32)});
        let mut two = manifest();
        two["format"] = 2.into();
        assert!(parse(&two).is_err());
        two["images"][0]["leaves"] = part.clone();
        two["images"][0]["patches"] =
            serde_json::json!([{"from": "cd".repeat(32), "from_size": 4, "index": part, "frames": part}]);
        assert_eq!(parse(&two).unwrap().images[0].patches.len(), 1);
        let mut unnamed = two.clone();
        unnamed["images"][0]["patches"][0]["from"] = "latest".into();
        assert!(parse(&unnamed).is_err());
        two["format"] = 1.into();
        assert!(parse(&two).is_err());
    }

    #[test]
    fn values_that_no_release_can_have_are_refused() {
        for (path, value) in [
            ("/images/0/sha256", serde_json::json!("../../etc/passwd")),
            ("/images/0/name", "../x".into()),
            ("/images/0/size", 0.into()),
            ("/images", serde_json::json!([])),
            ("/product", "".into()),
            ("/hardware", serde_json::json!([])),
            ("/images/0/index/size", u64::MAX.into()),
        ] {
            let mut wrong = manifest();
            *wrong.pointer_mut(path).unwrap() = value;
            assert!(matches!(parse(&wrong), Err(ManifestError::Value(_))), "{path}");
        }
    }
}
