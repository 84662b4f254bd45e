//! The search for a target through the delegations: pre-order, depth first (section 5.6.7).

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp as Time;

use super::{Fetched, Output, Request, Search, Source, Step, TrustedSet, check_stated_length, check_version};
use crate::document::{Delegations, MetaFile, RoleKeys, RoleName, Targets};
use crate::error::{Error, Subject};
use crate::file::{File, check_content, limit};
use crate::{MAX_DELEGATIONS, MAX_TARGETS_BYTES, is_target_name};

/// A search that has come so far.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    target: String,
    search: Search,
    source: Source,
    /// Looked into: a role that is delegated to again, in a circle or not, is not looked into again.
    visited: BTreeSet<String>,
    /// Still to look into; the last comes first.
    waiting: Vec<Waiting>,
}

/// A role to look into, and who vouches for it: the same role may be delegated to with different keys.
#[derive(Clone, Debug)]
struct Waiting {
    role: String,
    keys: RoleKeys,
    parent: Arc<Delegations>,
}

impl TrustedSet {
    /// Begins to look for a target, in place of a refresh or search that may be under way. When nothing is asked for
    /// any more, [`Self::target`] knows it, or it does not exist. What fails leaves the answer open.
    pub fn begin_search(&mut self, target: &str, search: Search) -> Result<(), Error> {
        self.step = Step::Idle;
        if search == Search::Online && !self.refreshed {
            return Err(Error::Idle);
        }
        let Some(targets) = self.targets.clone() else { return Err(Error::Idle) };
        self.found.remove(target);
        if !is_target_name(target) || targets.document.targets.contains_key(target) {
            return Ok(());
        }
        let mut walk = Walk {
            target: target.to_owned(),
            search,
            source: Source::Store,
            visited: BTreeSet::new(),
            waiting: Vec::new(),
        };
        walk.descend(targets.document.delegations.as_ref());
        self.step = walk.next_step();
        Ok(())
    }

    pub(super) fn search_request(&self, walk: &Walk) -> Option<Request> {
        let role = RoleName::Delegated(walk.waiting.last()?.role.clone());
        let stem = role.file_stem();
        // The store is asked for a role that is not listed, too: the answer to that is the error.
        let listed = self.listed_delegated(&role).ok();
        let from_repository = listed.filter(|_| walk.source == Source::Repository);
        let version = from_repository.and_then(|listed| self.consistent(listed));
        let path = match version {
            Some(version) => format!("{version}.{stem}.json"),
            None => format!("{stem}.json"),
        };
        let may_be_missing = walk.source == Source::Store;
        Some(Request {
            role,
            source: walk.source,
            path,
            max_len: listed.map_or(MAX_TARGETS_BYTES, |listed| limit(listed, MAX_TARGETS_BYTES)),
            may_be_missing,
        })
    }

    pub(super) fn feed_search(
        &mut self,
        request: &Request,
        fetched: Fetched<'_>,
        now: Time,
    ) -> Result<Vec<Output>, Error> {
        let Step::Search(walk) = &self.step else { return Err(Error::Idle) };
        let mut walk = walk.clone();
        if walk.visited.len() >= MAX_DELEGATIONS {
            return Err(Error::Delegations(Subject::Target(walk.target)));
        }
        self.listed_delegated(&request.role)?;
        let result = match fetched {
            Fetched::Bytes(bytes) => self.check_delegated(&walk, &request.role, bytes, now),
            Fetched::Missing => Err(Error::Missing(request.role.clone().into(), request.path.clone())),
        };
        let file = match result {
            Ok(file) => file,
            Err(_) if walk.source == Source::Store && walk.search == Search::Online => {
                walk.source = Source::Repository;
                self.step = Step::Search(walk);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let outputs = match walk.source {
            Source::Store => Vec::new(),
            Source::Repository => vec![Output::Persist { role: request.role.clone(), bytes: file.bytes }],
        };
        if let Some(target) = file.document.targets.get(&walk.target) {
            self.found.insert(walk.target.clone(), target.clone());
            self.step = Step::Idle;
            return Ok(outputs);
        }
        if let Some(done) = walk.waiting.pop() {
            walk.visited.insert(done.role);
        }
        walk.source = Source::Store;
        walk.descend(file.document.delegations.as_ref());
        self.step = walk.next_step();
        Ok(outputs)
    }

    fn check_delegated(
        &self,
        walk: &Walk,
        role: &RoleName,
        bytes: &[u8],
        now: Time,
    ) -> Result<File<Targets>, Error> {
        let listed = self.listed_delegated(role)?;
        let waiting = walk.waiting.last().ok_or(Error::Idle)?;
        let subject = Subject::from(role.clone());
        let allowed = limit(listed, MAX_TARGETS_BYTES);
        if bytes.len() as u64 > allowed {
            return Err(Error::Length { subject, allowed, found: bytes.len() as u64 });
        }
        check_content(bytes, listed, subject.clone())?;
        let file = File::<Targets>::parse_as(bytes, role)?;
        file.check_signers(&waiting.parent.keys, &waiting.keys, role)?;
        check_version(subject.clone(), listed.version, file.document.version)?;
        let expires = file.document.expires;
        if walk.search == Search::Online && now >= expires {
            return Err(Error::Expired { subject, expires, now });
        }
        Ok(file)
    }

    fn listed_delegated(&self, role: &RoleName) -> Result<&MetaFile, Error> {
        let file = format!("{}.json", listed_name(role));
        let meta = self.snapshot.as_ref().map(|snapshot| &snapshot.document.meta);
        let Some(listed) = meta.and_then(|meta| meta.get(&file)) else {
            return Err(Error::Missing(role.clone().into(), "the snapshot does not list it".to_owned()));
        };
        listed.length.map_or(Ok(()), |length| check_stated_length(role.clone().into(), length))?;
        Ok(listed)
    }
}

/// In a snapshot, names are as they are.
pub(super) fn listed_name(role: &RoleName) -> &str {
    match role {
        RoleName::Top(role) => role.name(),
        RoleName::Delegated(name) => name,
    }
}

impl Walk {
    /// To the next role, or to the end.
    fn next_step(mut self) -> Step {
        while self.waiting.pop_if(|next| self.visited.contains(&next.role)).is_some() {}
        if self.waiting.is_empty() { Step::Idle } else { Step::Search(self) }
    }

    /// Puts the roles that may sign the target before those that wait already; after a terminating one, nothing waits.
    fn descend(&mut self, delegations: Option<&Delegations>) {
        let Some(delegations) = delegations else { return };
        let parent = Arc::new(delegations.clone());
        let mut next = Vec::new();
        for delegate in parent.delegates(&self.target) {
            next.push(Waiting {
                role: delegate.name,
                keys: delegate.keys.clone(),
                parent: Arc::clone(&parent),
            });
            if delegate.terminating {
                self.waiting.clear();
                break;
            }
        }
        next.reverse();
        self.waiting.extend(next);
    }
}
