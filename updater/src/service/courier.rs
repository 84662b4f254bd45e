//! What the courier is asked to fetch, and what becomes of what it brings. It decides nothing: every byte is held
//! against a signature or a signed hash before it is used.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use sha2::{Digest, Sha256};
use vigil_tuf::{Fetched, Role, encoded_path};
use vigil_wire::{Fetch, Need, Response, State, Trouble};

use super::make::{Due, Expected, Refusal, Taken};
use super::steps::slot_cause;
use super::{Updater, now};
use crate::engine::plan::REQUEST_BYTES;
use crate::engine::{Event, Step, cause};
use crate::release::{Index, MANIFEST_BYTES, Manifest, blob_path};
use crate::stash::sha256_hex;
use crate::trust::{Progress, TrustError, Wanted as Document};

/// The fetch under way.
#[derive(Default)]
pub(super) struct Courier {
    last_need: u64,
    open: Option<Open>,
}

struct Open {
    need: Need,
    /// Whom it was asked of: nobody else's answer counts.
    peer: u64,
    what: What,
    /// What has come and was not used yet.
    buffer: Vec<u8>,
    /// Bytes that have come.
    received: u64,
    /// When it was asked for, or the last of it came.
    counted_at: Duration,
}

/// What, its path, where to begin, how many bytes, and whether that is the exact number.
type Wanted = (What, String, u64, u64, bool);

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Trust(Document),
    Manifest,
    Index {
        image: usize,
    },
    /// Leaves of so many units, and how many of them have come.
    Leaves {
        image: usize,
        unit: usize,
        count: usize,
        taken: usize,
    },
    PatchIndex {
        image: usize,
        sha256: String,
    },
    /// Frames that are not decoded yet, and where in the file the buffer begins.
    Frames {
        expected: VecDeque<Expected>,
        position: u64,
    },
}

impl Updater {
    /// What should be fetched next. Asking again gives up what was being fetched: the courier may be a new one. While
    /// one of them has claimed the errand, the others have nothing to do.
    pub(super) fn next_need(&mut self, peer: u64) -> io::Result<Response> {
        if self.claim.is_some_and(|claim| claim != peer) {
            return Ok(Response::Idle);
        }
        self.courier.open = None;
        if self.go_on_writing(now())? {
            return Ok(Response::Working);
        }
        self.settle()?;
        let Some((what, path, offset, length, exact)) = self.wanted()? else {
            return Ok(if self.engine.is_busy() { Response::Working } else { Response::Idle });
        };
        self.courier.last_need += 1;
        let need = Need { need: self.courier.last_need, path, offset, length, exact };
        self.courier.open = Some(Open {
            need: need.clone(),
            peer,
            what,
            buffer: Vec::new(),
            received: 0,
            counted_at: now().boot,
        });
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
            Step::FetchLeaves { image, unit, count } => self.engine.work().and_then(|work| {
                let units = &work.index(image)?.units()[unit..unit + count];
                let (first, last) = (units.first()?, units.last()?);
                let length = last.leaf_offset + u64::from(last.leaf_length) - first.leaf_offset;
                let path = blob_path(&work.manifest().images[image].leaves.as_ref()?.sha256);
                let what = What::Leaves { image, unit, count, taken: 0 };
                Some((what, path, first.leaf_offset, length, true))
            }),
            Step::FetchPatchIndex { image, patch } => self.engine.work().map(|work| {
                let part = &work.manifest().images[image].patches[patch].index;
                let what = What::PatchIndex { image, sha256: part.sha256.clone() };
                (what, blob_path(&part.sha256), 0, part.size, true)
            }),
            Step::FetchFrames { image, unit } => {
                let (path, expected) = match self.expected(image, unit) {
                    Ok(expected) => expected,
                    Err(error) => {
                        let (cause, message) = (slot_cause(&error), error.to_string());
                        self.tell(now(), Event::Failed { cause, message })?;
                        return Ok(None);
                    }
                };
                let expected = VecDeque::from(expected);
                expected.front().zip(expected.back()).map(|(first, last)| {
                    let (offset, end) = (first.offset, last.offset + u64::from(last.compressed));
                    (
                        What::Frames { expected: expected.clone(), position: offset },
                        path,
                        offset,
                        end - offset,
                        true,
                    )
                })
            }
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
        peer: u64,
        need: u64,
        offset: u64,
        fetch: Fetch,
        trouble: Option<&Trouble>,
        blob: &[u8],
    ) -> io::Result<Response> {
        let Some(mut open) = self.courier.open.take_if(|open| open.need.need == need && open.peer == peer)
        else {
            return Ok(refused("stale_need", "this is not what was asked for last; ask for the next need"));
        };
        let is_answered = !blob.is_empty() || fetch == Fetch::Missing;
        self.count_fed(&mut open, blob.len() as u64, is_answered);
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
                let taken = match open.what {
                    What::Frames { .. } => self.take_frames(&mut open)?,
                    What::Leaves { .. } => self.take_leaves(&mut open)?,
                    _ => Ok(Going::On),
                };
                match taken {
                    Err((cause, why)) => return self.fetch_failed(&open, cause, &why),
                    // What is due now is not in this file: the courier asks again.
                    Ok(Going::Elsewhere) if fetch == Fetch::More => return Ok(Response::Done),
                    Ok(Going::Later) => {
                        self.tell(now, Event::Fed)?;
                        self.courier.open = Some(open);
                        return Ok(Response::Working);
                    }
                    Ok(_) => {}
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

    /// Counts what came, as the plan counts: whether it is of use or not.
    fn count_fed(&mut self, open: &mut Open, bytes: u64, is_answered: bool) {
        let now = now().boot;
        let elapsed = now.saturating_sub(std::mem::replace(&mut open.counted_at, now));
        let requests = u64::from(open.received == 0 && is_answered);
        let cost = bytes + requests * REQUEST_BYTES;
        match open.what {
            What::Frames { .. } => self.count(|outcome| {
                outcome.requests += requests;
                outcome.fetch_bytes += cost;
                outcome.fetch_millis += elapsed.as_millis() as u64;
            }),
            What::Index { .. } | What::Leaves { .. } | What::PatchIndex { .. } => {
                self.count(|outcome| outcome.index_bytes += cost);
            }
            What::Trust(_) | What::Manifest if self.engine.journal().state == State::Checking => {
                self.count(|outcome| outcome.metadata_bytes += cost);
            }
            // Refreshes that no install waits for are no release's.
            What::Trust(_) | What::Manifest => {}
        }
    }

    /// Counts what came and was of no use, of the frames that are being fetched.
    pub(super) fn count_passed_over(&mut self, bytes: u64) {
        if bytes > 0
            && self.courier.open.as_ref().is_some_and(|open| matches!(open.what, What::Frames { .. }))
        {
            self.count(|outcome| outcome.fetch_bytes += bytes);
        }
    }

    fn missing(&mut self, open: &Open, trouble: Option<&Trouble>) -> io::Result<Response> {
        if let What::Trust(document @ Document::Metadata(request)) = &open.what
            && request.role == Role::Root
        {
            let progress = self.trust.take(document, Fetched::Missing, now());
            return self.after_trust(progress, &open.need.path);
        }
        let patch = match &open.what {
            What::PatchIndex { image, .. } => Some(*image),
            What::Frames { expected, .. } => {
                expected.front().filter(|frame| frame.is_of_patch()).map(|frame| frame.image)
            }
            _ => None,
        };
        let why = told(trouble, "it is not there");
        match patch {
            Some(image) => self.forgo_patch(image, &open.need.path, &why),
            None => self.fetch_failed(open, cause::FETCH_MISSING, &why),
        }
    }

    /// The publisher has pruned the patch since its manifest was fetched: the release's own frames bring the rest.
    fn forgo_patch(&mut self, image: usize, path: &str, why: &str) -> io::Result<Response> {
        self.settle()?;
        self.note("patch.missing", &format!("{path}: {why}; going on without the patch"));
        self.forget_patch(image);
        self.tell(now(), Event::PatchForgone { image })?;
        Ok(Response::Done)
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
                // The publisher speaks, and is late: that is an incident of his own, and contact for a release on trial.
                if matches!(error, TrustError::Refused(vigil_tuf::Error::Expired { .. })) {
                    self.tell(now(), Event::Authentic)?;
                }
                if !matches!(error, TrustError::Courier(_)) {
                    self.note("metadata.refused", &error.to_string());
                }
                return self.give_up_fetch(path, cause::FETCH, &error.to_string());
            }
        }
        Ok(Response::Done)
    }

    fn complete(&mut self, open: Open) -> io::Result<Response> {
        match open.what.clone() {
            What::Trust(document) => {
                let progress = self.trust.take(&document, Fetched::Bytes(&open.buffer), now());
                self.after_trust(progress, &open.need.path)
            }
            What::Manifest => self.complete_manifest(&open),
            What::Index { image } => self.complete_index(&open, image),
            What::PatchIndex { image, sha256 } => self.complete_patch_index(&open, image, &sha256),
            What::Leaves { .. } | What::Frames { .. } => Ok(Response::Done),
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
                    match self.survey(image, index.clone())? {
                        Some(survey) => Event::Index { image, survey },
                        None => Event::Unmapped { image, index },
                    }
                }
            },
        };
        self.tell(now(), event)?;
        Ok(Response::Done)
    }

    fn complete_patch_index(&mut self, open: &Open, image: usize, sha256: &str) -> io::Result<Response> {
        if sha256_hex(&open.buffer) != sha256 {
            return self.fetch_failed(open, cause::FETCH_CORRUPT, "it has not the hash that was signed");
        }
        if let Err(error) = self.stash.keep_patch_index(image, &open.buffer) {
            return self.fetch_failed(open, cause::STORAGE, &error.to_string());
        }
        self.tell(now(), Event::PatchIndex { image })?;
        Ok(Response::Done)
    }

    /// Keeps every leaf that is whole.
    fn take_leaves(&mut self, open: &mut Open) -> io::Result<Result<Going, Refusal>> {
        let What::Leaves { image, unit, count, taken } = &mut open.what else { return Ok(Ok(Going::On)) };
        let (mut used, before) = (0, *taken);
        while taken < count {
            let entry =
                self.engine.work().and_then(|work| work.index(*image)?.units().get(*unit + *taken).cloned());
            let Some(entry) = entry else {
                return Ok(Err((cause::CANCELLED, "the install was given up".to_owned())));
            };
            let Some(bytes) = open.buffer.get(used..used + entry.leaf_length as usize) else { break };
            if Sha256::digest(bytes).as_slice() != entry.leaf_sha256 {
                let message = format!("the leaf of unit {} has not the hash that was signed", *unit + *taken);
                return Ok(Err((cause::FETCH_CORRUPT, message)));
            }
            if let Err(error) = self.stash.keep_leaf(*image, entry.leaf_offset, bytes) {
                return Ok(Err((cause::STORAGE, error.to_string())));
            }
            used += bytes.len();
            *taken += 1;
        }
        open.buffer.drain(..used);
        // What is here is not fetched again should the link break.
        if *taken > before {
            let (image, unit, count) = (*image, *unit + before, *taken - before);
            self.tell(now(), Event::Leaves { image, unit, count })?;
        }
        Ok(Ok(Going::On))
    }

    /// Decodes every frame that is whole. A frame reaches the decompressor only with the hash that was signed, and a unit
    /// the slot when the one before it is on the disk: a power cut costs the unit that is being flushed, and what has come
    /// of the next.
    fn take_frames(&mut self, open: &mut Open) -> io::Result<Result<Going, Refusal>> {
        let What::Frames { expected, position } = &mut open.what else { return Ok(Ok(Going::On)) };
        if let Err(error) = self.open_parts() {
            self.tell(now(), Event::Failed { cause: slot_cause(&error), message: error.to_string() })?;
            return Ok(Err((slot_cause(&error), error.to_string())));
        }
        let begin = *position;
        let result = loop {
            let used = (*position - begin) as usize;
            let due = self.make_up_to_frames()?;
            let Some(next) = expected.front() else { break Ok(Going::On) };
            match due {
                Due::Frames(image, unit) if (image, unit) == (next.image, next.unit) => {}
                Due::Nothing if self.engine.work().is_none() => {
                    break Err((cause::CANCELLED, "the install was given up".to_owned()));
                }
                Due::Later => break Ok(Going::Later),
                Due::Frames(..) | Due::Nothing => break Ok(Going::Elsewhere),
            }
            let gap = (next.offset - *position) as usize;
            let Some(bytes) = open.buffer.get(used + gap..used + gap + next.compressed as usize) else {
                break Ok(Going::On);
            };
            let taken = self.take_frame(now(), next, bytes);
            match taken {
                Ok(Ok(Taken::Used)) => *position = next.offset + u64::from(next.compressed),
                Ok(Ok(Taken::Later)) => break Ok(Going::Later),
                Ok(Ok(Taken::Elsewhere)) => break Ok(Going::Elsewhere),
                Ok(Err(refusal)) => break Err(refusal),
                // Its disk is full: the unit is fetched again when that may have passed.
                Err(error) => break Err((cause::STORAGE, error.to_string())),
            }
            expected.pop_front();
        };
        open.buffer.drain(..(*position - begin) as usize);
        Ok(result)
    }
}

/// Whether what is due next is in the file that is coming.
enum Going {
    On,
    Elsewhere,
    /// It goes on when the courier says the same again, with nothing in it.
    Later,
}

/// What the courier tells of its trouble: a stranger's words, for people.
fn told(trouble: Option<&Trouble>, otherwise: &str) -> String {
    trouble.map_or(otherwise, |trouble| &trouble.message).to_owned()
}

pub(super) fn refused(code: &str, message: &str) -> Response {
    Response::Refused { code: code.to_owned(), message: message.into() }
}
