//! A device that was made with the first root and keeps what it trusts.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use vigil_tuf::{Error, Fetched, Search, Source, Stored, Target, TrustedSet};

pub(crate) struct Device {
    metadata: PathBuf,
    pub(crate) set: TrustedSet,
}

impl Device {
    pub(crate) fn new(repository: &Path) -> Self {
        let metadata = repository.join("metadata");
        let root = std::fs::read(metadata.join("1.root.json")).unwrap();
        Self { metadata, set: TrustedSet::load(&root, Stored::default()).unwrap().0 }
    }

    pub(crate) fn refresh(&mut self) -> Result<(), Error> {
        self.set.begin_refresh();
        self.go_on()
    }

    /// Searches for a target through the delegations.
    pub(crate) fn find(&mut self, name: &str) -> Result<Option<Target>, Error> {
        self.set.begin_search(name, Search::Online)?;
        self.go_on()?;
        Ok(self.set.target(name).cloned())
    }

    fn go_on(&mut self) -> Result<(), Error> {
        while let Some(request) = self.set.next_request() {
            let file = match request.source {
                Source::Repository => std::fs::read(self.metadata.join(&request.path)).ok(),
                Source::Store => None,
            };
            let fetched = file.as_deref().map_or(Fetched::Missing, Fetched::Bytes);
            self.set.feed(fetched, Timestamp::now())?;
        }
        Ok(())
    }
}
