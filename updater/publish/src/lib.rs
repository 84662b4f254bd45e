//! The release engineer's end of Vigil: keys, roles and ceremonies, the TUF repository, operators' lists and releases
//! as its targets.
//!
//! A repository is a directory for any web server: `metadata/`, `targets/` and `blobs/`. It is published so that a
//! reader at any moment sees either the old state or the new one: blobs and targets first, `timestamp.json` last.
//! What lacks signatures waits in a directory beside it.

pub mod content;
pub mod diff;
pub mod init;
pub mod keyring;
pub mod keys;
pub mod operators;
pub mod passphrase;
pub mod prune;
pub mod public;
pub mod published;
pub mod release;
pub mod repository;
pub mod roles;
pub mod rotate;
pub mod sealed;
pub mod settings;
pub mod settle;
pub mod sign;
pub mod signers;
pub mod staged;
pub mod verify;

mod blobs;
mod files;
mod rebuild;
mod units;
