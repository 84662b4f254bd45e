//! The release engineer's end of Vigil: role keys, the TUF repository, operators' lists and releases as its targets.
//!
//! A repository is a directory for any web server: `metadata/`, `targets/` and `blobs/`. It is published so that a
//! reader at any moment sees either the old state or the new one: blobs and targets first, `timestamp.json` last.

pub mod keys;
pub mod operators;
pub mod release;
pub mod repository;
pub mod verify;

mod blobs;
mod files;
