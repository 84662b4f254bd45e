//! A repository in memory that a test can break in any way, and the client's shell around the trusted set.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey};
use jiff::Timestamp;
use serde_json::{Value, json};
use vigil_tuf::canonical::Json;
use vigil_tuf::document::{Hashes, Key};
use vigil_tuf::{
    Error, Fetched, MAX_DELEGATIONS, Output, Role, RoleName, Search, Source, Stored, Target, TrustedSet,
};

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// When the tests play; everything expires at [`EXPIRES`].
pub(crate) fn now() -> Timestamp {
    at("2026-06-01T00:00:00Z")
}

pub(crate) const EXPIRES: &str = "2027-01-01T00:00:00Z";

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Ids are deliberately no hashes of their keys.
pub(crate) fn key_id(seed: u8) -> String {
    format!("key-{seed}")
}

/// The `signed` part of each role, who signs it (seeds of keys), and the files as served.
pub(crate) struct Repository {
    pub(crate) root: Value,
    pub(crate) timestamp: Value,
    pub(crate) snapshot: Value,
    pub(crate) targets: Value,
    /// By role: what is signed, and the seeds of the keys that sign it.
    pub(crate) delegated: BTreeMap<String, (Value, Vec<u8>)>,
    pub(crate) signers: BTreeMap<Role, Vec<u8>>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Whether to state lengths and hashes of metadata.
    pub(crate) hashes: bool,
}

impl Repository {
    /// Version 1 of everything, published; root is signed by key 1, timestamp by 2, snapshot by 3, targets by 4.
    pub(crate) fn new() -> Self {
        let role = |seed: u8| json!({"keyids": [key_id(seed)], "threshold": 1});
        let common =
            |kind: &str| json!({"_type": kind, "spec_version": "1.0.31", "version": 1, "expires": EXPIRES});
        let mut root = common("root");
        root["consistent_snapshot"] = json!(true);
        root["keys"] = json!({});
        root["roles"] =
            json!({"root": role(1), "timestamp": role(2), "snapshot": role(3), "targets": role(4)});
        let mut timestamp = common("timestamp");
        timestamp["meta"] = json!({"snapshot.json": {"version": 1}});
        let mut snapshot = common("snapshot");
        snapshot["meta"] = json!({"targets.json": {"version": 1}});
        let mut targets = common("targets");
        targets["targets"] = json!({});
        let signers = Role::ALL.into_iter().zip([vec![1], vec![2], vec![3], vec![4]]).collect();
        let (delegated, files) = (BTreeMap::new(), BTreeMap::new());
        let mut new = Self { root, timestamp, snapshot, targets, delegated, signers, files, hashes: true };
        for seed in 1..=4 {
            new.add_key(seed);
        }
        new.add_target("operators/acme.json", b"the operators");
        new.publish_root();
        new.publish();
        new
    }

    pub(crate) fn signed(&mut self, role: Role) -> &mut Value {
        match role {
            Role::Root => &mut self.root,
            Role::Timestamp => &mut self.timestamp,
            Role::Snapshot => &mut self.snapshot,
            Role::Targets => &mut self.targets,
        }
    }

    pub(crate) fn add_key(&mut self, seed: u8) {
        self.root["keys"][key_id(seed)] = json!(Key::from_ed25519(&key(seed).verifying_key()));
    }

    /// Gives a role other keys, in root and as its signers.
    pub(crate) fn set_keys(&mut self, role: Role, seeds: &[u8], threshold: u32) {
        for seed in seeds {
            self.add_key(*seed);
        }
        let keyids: Vec<_> = seeds.iter().map(|seed| key_id(*seed)).collect();
        self.root["roles"][role.name()] = json!({"keyids": keyids, "threshold": threshold});
        self.signers.insert(role, seeds.to_vec());
    }

    pub(crate) fn add_target(&mut self, name: &str, bytes: &[u8]) {
        self.targets["targets"][name] =
            json!({"length": bytes.len(), "hashes": Hashes::sha256_of(bytes), "custom": {"n": 1}});
    }

    /// Makes a role that `parent` (or the top-level targets) delegates to, signed by the key of `seed`. `how` has
    /// `paths` or `path_hash_prefixes`, and may have anything else.
    pub(crate) fn delegate(&mut self, parent: Option<&str>, name: &str, seed: u8, how: Value) {
        let signed = json!({"_type": "targets", "spec_version": "1.0.31", "version": 1, "expires": EXPIRES, "targets": {}});
        self.delegated.entry(name.to_owned()).or_insert((signed, vec![seed]));
        let mut role = json!({"name": name, "keyids": [key_id(seed)], "threshold": 1, "terminating": false});
        for (field, value) in how.as_object().unwrap() {
            role[field] = value.clone();
        }
        let parent = match parent {
            Some(parent) => &mut self.delegated.get_mut(parent).unwrap().0,
            None => &mut self.targets,
        };
        if parent.get("delegations").is_none() {
            parent["delegations"] = json!({"keys": {}, "roles": []});
        }
        parent["delegations"]["keys"][key_id(seed)] = json!(Key::from_ed25519(&key(seed).verifying_key()));
        parent["delegations"]["roles"].as_array_mut().unwrap().push(role);
    }

    pub(crate) fn add_delegated_target(&mut self, role: &str, name: &str, bytes: &[u8]) {
        self.delegated.get_mut(role).unwrap().0["targets"][name] =
            json!({"length": bytes.len(), "hashes": Hashes::sha256_of(bytes)});
    }

    pub(crate) fn bump(&mut self, role: Role) {
        let signed = self.signed(role);
        signed["version"] = json!(signed["version"].as_u64().unwrap() + 1);
    }

    pub(crate) fn sign(&self, role: Role, signed: &Value) -> Vec<u8> {
        sign(signed, &self.signers[&role])
    }

    /// Signs and serves a file under its versioned and its plain name.
    pub(crate) fn serve(&mut self, role: Role) -> Vec<u8> {
        let signed = self.signed(role).clone();
        let bytes = self.sign(role, &signed);
        self.files.insert(format!("{}.{role}.json", signed["version"]), bytes.clone());
        self.files.insert(format!("{role}.json"), bytes.clone());
        bytes
    }

    pub(crate) fn publish_root(&mut self) {
        self.serve(Role::Root);
    }

    pub(crate) fn rotate_root(&mut self) {
        self.bump(Role::Root);
        self.publish_root();
    }

    /// Serves targets, snapshot and timestamp, each listing the one before.
    pub(crate) fn publish(&mut self) {
        for (name, (signed, seeds)) in &self.delegated {
            let bytes = sign(signed, seeds);
            let stem = RoleName::Delegated(name.clone()).file_stem();
            self.snapshot["meta"][format!("{name}.json")] = self.listed(signed, &bytes);
            self.files.insert(format!("{}.{stem}.json", signed["version"]), bytes.clone());
            self.files.insert(format!("{stem}.json"), bytes);
        }
        let targets = self.serve(Role::Targets);
        self.snapshot["meta"]["targets.json"] = self.listed(&self.targets, &targets);
        let snapshot = self.serve(Role::Snapshot);
        self.timestamp["meta"]["snapshot.json"] = self.listed(&self.snapshot, &snapshot);
        self.serve(Role::Timestamp);
    }

    fn listed(&self, signed: &Value, bytes: &[u8]) -> Value {
        if self.hashes {
            json!({"version": signed["version"], "length": bytes.len(), "hashes": Hashes::sha256_of(bytes)})
        } else {
            json!({"version": signed["version"]})
        }
    }

    /// A new version of all three, listing a new target.
    pub(crate) fn publish_next(&mut self) {
        for role in [Role::Targets, Role::Snapshot, Role::Timestamp] {
            self.bump(role);
        }
        self.publish();
    }
}

pub(crate) fn sign(signed: &Value, seeds: &[u8]) -> Vec<u8> {
    let message = Json::parse(signed.to_string().as_bytes()).unwrap().canonical();
    let signatures: Vec<_> = seeds
        .iter()
        .map(|seed| json!({"keyid": key_id(*seed), "sig": HEXLOWER.encode(&key(*seed).sign(&message).to_bytes())}))
        .collect();
    json!({"signed": signed, "signatures": signatures}).to_string().into_bytes()
}

/// Most requests of one refresh (roots and three more files) or of one search (each role in the store, then in the
/// repository). What asks for more goes in a circle, and a test must not go with it.
const MOST_REQUESTS: usize = 2 * MAX_DELEGATIONS + 8;

/// A device: the trusted set and its store.
pub(crate) struct Client {
    pub(crate) set: TrustedSet,
    pub(crate) stored: Stored,
    pub(crate) delegated: BTreeMap<String, Vec<u8>>,
    pub(crate) image_root: Vec<u8>,
    pub(crate) requests: Vec<String>,
}

impl Client {
    pub(crate) fn new(repository: &Repository) -> Self {
        let image_root = repository.files["1.root.json"].clone();
        let (set, dropped) = TrustedSet::load(&image_root, Stored::default()).unwrap();
        assert_eq!(dropped, Vec::<String>::new());
        Self { set, stored: Stored::default(), delegated: BTreeMap::new(), image_root, requests: Vec::new() }
    }

    /// A client that has the whole of `repository`.
    pub(crate) fn refreshed(repository: &Repository) -> Self {
        let mut client = Self::new(repository);
        client.refresh(repository, now()).unwrap();
        client
    }

    /// As after a restart of the daemon.
    pub(crate) fn restart(&mut self) -> Vec<String> {
        let (set, dropped) = TrustedSet::load(&self.image_root, self.stored.clone()).unwrap();
        self.set = set;
        dropped
    }

    pub(crate) fn refresh(&mut self, repository: &Repository, now: Timestamp) -> Result<(), Error> {
        self.set.begin_refresh();
        self.bring(repository, now)?;
        assert!(self.set.is_refreshed());
        Ok(())
    }

    /// Looks for a target after a refresh.
    pub(crate) fn search(&mut self, repository: &Repository, target: &str) -> Result<Option<Target>, Error> {
        self.search_at(repository, target, now())
    }

    pub(crate) fn search_at(
        &mut self,
        repository: &Repository,
        target: &str,
        now: Timestamp,
    ) -> Result<Option<Target>, Error> {
        self.set.begin_search(target, Search::Online)?;
        self.bring(repository, now)?;
        Ok(self.set.target(target).cloned())
    }

    /// Brings what is asked for; only what the repository is asked for is noted.
    pub(crate) fn bring(&mut self, repository: &Repository, now: Timestamp) -> Result<(), Error> {
        self.requests.clear();
        let mut requests = 0;
        while let Some(request) = self.set.next_request() {
            requests += 1;
            assert!(requests <= MOST_REQUESTS, "it asks for {} and comes to no end", request.path);
            let file = match request.source {
                Source::Repository => {
                    self.requests.push(request.path.clone());
                    repository.files.get(&request.path)
                }
                Source::Store => self.delegated.get(&request.path),
            };
            let fetched = file.map_or(Fetched::Missing, |bytes| Fetched::Bytes(bytes));
            for output in self.set.feed(fetched, now)? {
                self.store(output);
            }
        }
        Ok(())
    }

    pub(crate) fn store(&mut self, output: Output) {
        match output {
            Output::Persist { role: RoleName::Top(role), bytes } => *self.slot(role) = Some(bytes),
            Output::Persist { role, bytes } => {
                self.delegated.insert(format!("{}.json", role.file_stem()), bytes);
            }
            Output::Forget { role: RoleName::Top(role) } => *self.slot(role) = None,
            Output::Forget { role } => drop(self.delegated.remove(&format!("{}.json", role.file_stem()))),
            Output::TimeFloor(floor) => self.stored.time_floor = Some(floor),
        }
    }

    fn slot(&mut self, role: Role) -> &mut Option<Vec<u8>> {
        match role {
            Role::Root => &mut self.stored.root,
            Role::Timestamp => &mut self.stored.timestamp,
            Role::Snapshot => &mut self.stored.snapshot,
            Role::Targets => &mut self.stored.targets,
        }
    }

    pub(crate) fn versions(&self) -> [Option<u64>; 4] {
        Role::ALL.map(|role| self.set.version(role))
    }

    /// Refreshes, expecting to be refused; the code and role of the error.
    pub(crate) fn refused(&mut self, repository: &Repository) -> (&'static str, Option<Role>) {
        let error = self.refresh(repository, now()).unwrap_err();
        assert!(!self.set.is_refreshed());
        assert_eq!(self.set.next_request(), None, "an error ends the refresh");
        (error.code(), error.role())
    }
}
