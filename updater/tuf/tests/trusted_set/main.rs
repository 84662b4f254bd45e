//! The trusted set against a repository in memory: each rule refused, and its valid twin accepted.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests, too.

mod chain;
mod damage;
mod delegations;
mod keys;
mod load;
mod nonsense;
mod repository;
mod root;
mod time;
