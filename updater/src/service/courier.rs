//! What the courier is asked to fetch, and what becomes of what it brings. It decides nothing: every byte is held
//! against a signature or a signed hash before it is used.

use std::io;

use sha2::{Digest, Sha256};
use vigil_durable::crash_point;
use vigil_tuf::{Fetched, Role, encoded_path};
use vigil_wire::{Fetch, Need, Response, Trouble};

use super::steps::slot_cause;
use super::{Updater, now};
use crate::engine::{Event, Step, cause};
use crate::release::{Index, MANIFEST_BYTES, Manifest, blob_path};
use crate::stash::sha256_hex;
use crate::trust::{Progress, TrustError, Wanted as Document};

/// A courier's message at most.
const TROUBLE_BYTES: usize = 300;

/// The fetch under way.
#[derive(Default)]
pub(super) struct Courier {
    last_need: u64,
    open: Option<Open>,
}

struct Open {
    need: Need,
    what: What,
    /// What has come and was not used yet.
    buffer: Vec<u8>,
    /// Bytes that have come.
    received: u64,
}

/// What, its path, where to begin, how many bytes, and whether that is the exact number.
type Wanted = (What, String, u64, u64, bool);

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Trust(Document),
    Manifest,
    Index { image: usize },
    Frames { image: usize, frame: usize },
}

impl Updater {
    /// What should be fetched next. Asking again gives up what was being fetched: the courier may be a new one. While
    /// one of them has claimed the errand, the others have nothing to do.
    pub(super) fn next_need(&mut self, peer: u64) -> io::Result<Response> {
        if self.claim.is_some_and(|claim| claim != peer) {
            return Ok(Response::Idle);
        }
        self.courier.open = None;
        self.settle()?;
        let Some((what, path, offset, length, exact)) = self.wanted()? else {
            return Ok(if self.engine.is_busy() { Response::Working } else { Response::Idle });
        };
        self.courier.last_need += 1;
        let need = Need { need: self.courier.last_need, path, offset, length, exact };
        self.courier.open = Some(Open { need: need.clone(), what, buffer: Vec::new(), received: 0 });
        Ok(Response::Need(need))
    }

    fn wanted(&mut self) -> io::Result<Option<Wanted>> {
        if !self.pending.is_empty() {
            return Ok(None);
        }
        self.trust.keep_time(now())?;
        let step = self.engine.next(now());
        if !self.trust.is_busy() {
            match &step {
                Step::Refresh => self.trust.begin_refresh(now()),
                Step::FetchManifest { target } if self.trust.sought() != Some(target) => {
                    let sought = self.trust.seek(target, now());
                    self.after_trust(sought, &format!("metadata for {target}"))?;
                }
                _ => {}
            }
        }
        match self.trust.wanted() {
            Some(Document::Metadata(request)) => {
                let (path, length) = (format!("metadata/{}", request.path), request.max_len);
                return Ok(Some((What::Trust(Document::Metadata(request)), path, 0, length, false)));
            }
            Some(Document::Target { name, path, length }) => {
                let url = format!("targets/{path}");
                return Ok(Some((
                    What::Trust(Document::Target { name, path, length }),
                    url,
                    0,
                    length,
                    true,
                )));
            }
            // A search that failed leaves the question open: it is asked again after the pause.
            None if matches!(&step, Step::FetchManifest { target } if self.trust.sought() != Some(target)) => {
                return Ok(None);
            }
            None => {}
        }
        Ok(match step {
            Step::FetchManifest { target } => {
                let need = self.target_need(What::Manifest, &target, MANIFEST_BYTES);
                if need.is_none() {
                    let message =
                        format!("the repository's metadata does not list {target}, or it is too large");
                    self.tell(now(), Event::Failed { cause: cause::FETCH, message })?;
                }
                need
            }
            Step::FetchIndex { image } => self.engine.work().map(|work| {
                let part = &work.manifest().images[image].index;
                (What::Index { image }, blob_path(&part.sha256), 0, part.size, true)
            }),
            Step::FetchFrames { image, frame, count } => self.engine.work().and_then(|work| {
                let frames = work.index(image)?.frames();
                let first = &frames[frame];
                let last = &frames[frame + count - 1];
                let length = last.offset + u64::from(last.compressed) - first.offset;
                let path = blob_path(&work.manifest().images[image].frames.sha256);
                Some((What::Frames { image, frame }, path, first.offset, length, true))
            }),
            _ => None,
        })
    }

    fn target_need(&self, what: What, name: &str, limit: u64) -> Option<Wanted> {
        let length = self.trust.set().target(name)?.length;
        let path = format!("targets/{}", encoded_path(&self.trust.set().target_path(name)?));
        (length <= limit).then_some((what, path, 0, length, true))
    }

    /// Takes what the courier brings.
    pub(super) fn feed(
        &mut self,
        need: u64,
        offset: u64,
        fetch: Fetch,
        trouble: Option<&Trouble>,
        blob: &[u8],
    ) -> io::Result<Response> {
        let Some(mut open) = self.courier.open.take_if(|open| open.need.need == need) else {
            return Ok(refused("stale_need", "this is not what was asked for last; ask for the next need"));
        };
        if offset != open.need.offset + open.received {
            return self.fetch_failed(
                &open,
                cause::FETCH_RANGE,
                "bytes from another place than was asked for",
            );
        }
        open.received += blob.len() as u64;
        if open.received > open.need.length {
            return self.fetch_failed(&open, cause::FETCH_RANGE, "more bytes than were signed for");
        }
        let now = now();
        // Byte by byte, a file could be on its way for ever without one being late.
        if matches!(open.what, What::Trust(_)) && self.trust.is_overdue(now) {
            return self.fetch_failed(&open, cause::FETCH, "the refresh took too long and begins anew");
        }
        match fetch {
            Fetch::Failed => {
                let range = trouble.is_some_and(|trouble| trouble.range);
                let cause = if range { cause::FETCH_RANGE } else { cause::FETCH };
                self.fetch_failed(&open, cause, &told(trouble, "the courier could not fetch it"))
            }
            Fetch::Missing => self.missing(&open, trouble),
            Fetch::More | Fetch::Last => {
                open.buffer.extend_from_slice(blob);
                if matches!(open.what, What::Frames { .. })
                    && let Err((cause, why)) = self.take_frames(&mut open)?
                {
                    return self.fetch_failed(&open, cause, &why);
                }
                if fetch == Fetch::Last {
                    self.settle()?;
                    if open.need.exact && open.received < open.need.length {
                        return self.fetch_failed(
                            &open,
                            cause::FETCH_RANGE,
                            "fewer bytes than were signed for",
                        );
                    }
                    return self.complete(open);
                }
                self.tell(now, Event::Fed)?;
                self.courier.open = Some(open);
                Ok(Response::Continue)
            }
        }
    }

    fn missing(&mut self, open: &Open, trouble: Option<&Trouble>) -> io::Result<Response> {
        if let What::Trust(document @ Document::Metadata(request)) = &open.what
            && request.role == Role::Root
        {
            let progress = self.trust.take(document, Fetched::Missing, now());
            return self.after_trust(progress, &open.need.path);
        }
        self.fetch_failed(open, cause::FETCH_MISSING, &told(trouble, "it is not there"))
    }

    fn fetch_failed(&mut self, open: &Open, cause: &'static str, why: &str) -> io::Result<Response> {
        if let What::Trust(_) = open.what {
            let progress = self.trust.fetch_failed(why, now());
            return self.after_trust(progress, &open.need.path);
        }
        self.settle()?;
        self.give_up_fetch(&open.need.path, cause, why)
    }

    fn give_up_fetch(&mut self, path: &str, cause: &'static str, why: &str) -> io::Result<Response> {
        let message = format!("{path}: {why}");
        self.note("fetch.failed", &message);
        self.tell(now(), Event::FetchFailed { cause, message: message.clone() })?;
        Ok(refused("fetch_failed", &message))
    }

    /// What follows from a step of the trusted set's round.
    fn after_trust(&mut self, progress: Result<Progress, TrustError>, path: &str) -> io::Result<Response> {
        for (kind, message) in self.trust.take_notes() {
            self.note(kind, &message);
        }
        match progress {
            Ok(Progress::Refreshed) => self.tell(now(), Event::Refreshed)?,
            Ok(Progress::More | Progress::Sought) => self.tell(now(), Event::Fed)?,
            Err(error) => {
                if !matches!(error, TrustError::Courier(_)) {
                    self.note("metadata.refused", &error.to_string());
                }
                return self.give_up_fetch(path, cause::FETCH, &error.to_string());
            }
        }
        Ok(Response::Done)
    }

    fn complete(&mut self, open: Open) -> io::Result<Response> {
        match open.what {
            What::Trust(document) => {
                let progress = self.trust.take(&document, Fetched::Bytes(&open.buffer), now());
                self.after_trust(progress, &open.need.path)
            }
            What::Manifest => self.complete_manifest(&open),
            What::Index { image } => self.complete_index(&open, image),
            What::Frames { .. } => Ok(Response::Done),
        }
    }

    fn complete_manifest(&mut self, open: &Open) -> io::Result<Response> {
        let Step::FetchManifest { target } = self.engine.next(now()) else { return Ok(Response::Done) };
        if let Err(error) = self.trust.set().verify_target(&target, &open.buffer) {
            return self.fetch_failed(open, cause::FETCH_CORRUPT, &error.to_string());
        }
        // From here on it is the publisher's word: what is wrong with it will not get better by fetching again.
        let event = match Manifest::parse(&open.buffer) {
            Err(error) => Event::Failed { cause: cause::BAD_RELEASE, message: error.to_string() },
            Ok(manifest) => match self.judge(&manifest) {
                Err((cause, message)) => Event::Failed { cause, message },
                Ok(()) => {
                    if let Err(error) = self.stash.keep_manifest(&open.buffer) {
                        return self.fetch_failed(open, cause::STORAGE, &error.to_string());
                    }
                    Event::Manifest { manifest: Box::new(manifest), sha256: sha256_hex(&open.buffer) }
                }
            },
        };
        self.tell(now(), event)?;
        Ok(Response::Done)
    }

    fn complete_index(&mut self, open: &Open, image: usize) -> io::Result<Response> {
        let wanted = self.engine.work().map(|work| work.manifest().images[image].index.sha256.clone());
        if wanted != Some(sha256_hex(&open.buffer)) {
            return self.fetch_failed(open, cause::FETCH_CORRUPT, "it has not the hash that was signed");
        }
        let event = match Index::parse(&open.buffer) {
            Err(error) => Event::Failed { cause: cause::BAD_RELEASE, message: error.to_string() },
            Ok(index) => match self.open_parts() {
                // Before the other slot is touched at all.
                Err(error) => Event::Failed { cause: slot_cause(&error), message: error.to_string() },
                Ok(()) => {
                    if let Err(error) = self.stash.keep_index(image, &open.buffer) {
                        return self.fetch_failed(open, cause::STORAGE, &error.to_string());
                    }
                    Event::Index { image, index }
                }
            },
        };
        self.tell(now(), event)?;
        Ok(Response::Done)
    }

    /// Waits until the frame that was written last is on the disk, and tells the engine.
    fn settle(&mut self) -> io::Result<()> {
        let Some((image, frame)) = self.unflushed.take() else { return Ok(()) };
        let event = match self.flusher.wait() {
            Ok(()) => {
                crash_point("slot.frame", "after");
                Event::Written { image, frame }
            }
            Err(error) => Event::Failed { cause: slot_cause(&error), message: error.to_string() },
        };
        self.tell(now(), event)
    }

    /// Writes every frame that is whole. A frame reaches the decompressor only with the hash that was signed, and the
    /// slot when the one before it is on the disk: a power cut costs the frame that is being flushed, and what has
    /// come of the next.
    fn take_frames(&mut self, open: &mut Open) -> io::Result<Result<(), (&'static str, String)>> {
        let What::Frames { image, frame } = &mut open.what else { return Ok(Ok(())) };
        let image = *image;
        if let Err(error) = self.open_parts() {
            self.tell(now(), Event::Failed { cause: slot_cause(&error), message: error.to_string() })?;
            return Ok(Err((slot_cause(&error), error.to_string())));
        }
        let mut used = 0;
        let result = loop {
            let Some((work, index)) = self.engine.work().and_then(|work| Some((work, work.index(image)?)))
            else {
                break Err((cause::CANCELLED, "the install was given up".to_owned()));
            };
            let Some(entry) = index.frames().get(*frame) else { break Ok(()) };
            let Some(compressed) = open.buffer.get(used..used + entry.compressed as usize) else {
                break Ok(());
            };
            if Sha256::digest(compressed).as_slice() != entry.compressed_sha256 {
                break Err((cause::FETCH_CORRUPT, format!("frame {frame} has not the hash that was signed")));
            }
            let (offset, size) = index.extent(*frame);
            let decoded = decompress(&mut self.decompressor, compressed, size as usize, &mut self.frame)
                .and_then(|()| {
                    // What comes of verified bytes is certain; reading the slot back holds it against its hash anyway.
                    let matches =
                        !work.is_suspect() || Sha256::digest(&self.frame).as_slice() == entry.sha256;
                    matches
                        .then_some(())
                        .ok_or_else(|| "it decodes to something else than was signed".to_owned())
                });
            used += entry.compressed as usize;
            if let Err(why) = decoded {
                let message = format!("frame {frame}: {why}");
                self.tell(now(), Event::Failed { cause: cause::BAD_RELEASE, message: message.clone() })?;
                break Err((cause::BAD_RELEASE, message));
            }
            if let Err(error) = self.keep_head(image, *frame) {
                // Its disk is full: the frame is fetched again when that may have passed.
                break Err((cause::STORAGE, error.to_string()));
            }
            self.settle()?;
            // The flush may have failed, and the install with it.
            let Some(part) = self.parts.get(image) else {
                break Err((cause::CANCELLED, "the install was given up".to_owned()));
            };
            if let Err(error) = part.write_behind(&mut self.flusher, "slot.frame", offset, &self.frame) {
                let (cause, message) = (slot_cause(&error), error.to_string());
                self.tell(now(), Event::Failed { cause, message: message.clone() })?;
                break Err((cause, message));
            }
            self.unflushed = Some((image, *frame));
            *frame += 1;
        };
        open.buffer.drain(..used);
        Ok(result)
    }
}

/// Decodes one frame into exactly `size` bytes of `raw`. The window is capped at a frame's size by the frame itself:
/// the whole output is held anyway.
fn decompress(
    decompressor: &mut Option<zstd::bulk::Decompressor<'static>>,
    frame: &[u8],
    size: usize,
    raw: &mut Vec<u8>,
) -> Result<(), String> {
    let decompressor = match decompressor {
        Some(decompressor) => decompressor,
        none => none.insert(zstd::bulk::Decompressor::new().map_err(|error| error.to_string())?),
    };
    raw.clear();
    raw.reserve_exact(size);
    let count = decompressor.decompress_to_buffer(frame, raw).map_err(|error| error.to_string())?;
    if count == size { Ok(()) } else { Err(format!("{count} bytes, expected {size}")) }
}

/// What the courier tells of its trouble: a stranger's words, for people.
fn told(trouble: Option<&Trouble>, otherwise: &str) -> String {
    let Some(trouble) = trouble else { return otherwise.to_owned() };
    let mut message: String = trouble.message.chars().filter(|character| !character.is_control()).collect();
    message.truncate(message.floor_char_boundary(TROUBLE_BYTES));
    message
}

pub(super) fn refused(code: &str, message: &str) -> Response {
    Response::Refused { code: code.to_owned(), message: message.to_owned() }
}
