//! The start: which of the stored files can still be trusted.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp as Time;

use super::{Step, Stored, TrustedSet};
use crate::document::{Document, Root};
use crate::error::Error;
use crate::file::File;

impl TrustedSet {
    /// Takes the image's root and what was stored. The stored root is used if it is sound and newer than the image's;
    /// of the same version, the image's counts. What else is damaged or not signed for this root is dropped, and
    /// fetched again by the next refresh; the second value says what was dropped and why. Expired files are kept:
    /// they still guard against going back.
    pub fn load(image_root: &[u8], stored: Stored) -> Result<(Self, Vec<String>), Error> {
        let mut dropped = Vec::new();
        let image = self_signed(image_root)?;
        let root = match stored.root.as_deref().map(self_signed) {
            Some(Ok(stored)) if stored.document.version > image.document.version => stored,
            Some(Err(error)) => {
                dropped.push(format!("the stored root was dropped: {error}"));
                image
            }
            _ => image,
        };
        let timestamp = load_signed(stored.timestamp.as_deref(), &root.document, &mut dropped);
        let mut floor = stored.time_floor.unwrap_or(Time::UNIX_EPOCH);
        let stored_floor = floor;
        match &timestamp {
            Ok(Some(file)) => {
                let file: &File<crate::document::Timestamp> = file;
                floor = floor.max(file.document.issued.unwrap_or(Time::UNIX_EPOCH));
            }
            // The keys that vouched for the floor are not this root's; a damaged file says nothing about them.
            Err(Error::Threshold { .. }) => floor = Time::UNIX_EPOCH,
            Ok(None) | Err(_) => {}
        }
        let set = Self {
            timestamp: timestamp.ok().flatten().map(Arc::new),
            snapshot: load_signed(stored.snapshot.as_deref(), &root.document, &mut dropped)
                .ok()
                .flatten()
                .map(Arc::new),
            targets: load_signed(stored.targets.as_deref(), &root.document, &mut dropped)
                .ok()
                .flatten()
                .map(Arc::new),
            found: BTreeMap::new(),
            root: Arc::new(root),
            floor,
            stored_floor,
            step: Step::Idle,
            refreshed: false,
        };
        Ok((set, dropped))
    }
}

fn self_signed(bytes: &[u8]) -> Result<File<Root>, Error> {
    let root = File::<Root>::parse(bytes)?;
    root.check_signatures(&root.document)?;
    Ok(root)
}

fn load_signed<D: Document>(
    bytes: Option<&[u8]>,
    root: &Root,
    dropped: &mut Vec<String>,
) -> Result<Option<File<D>>, Error> {
    let Some(bytes) = bytes else { return Ok(None) };
    let result = File::<D>::parse(bytes).and_then(|file| file.check_signatures(root).map(|()| file));
    if let Err(error) = &result {
        dropped.push(format!("the stored {} metadata was dropped: {error}", D::ROLE));
    }
    result.map(Some)
}
