//! `vigil-publish` as it is run, and what it publishes as a device reads it.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests, too.

mod ceremonies;
mod crash;
mod delegations;
mod desk;
mod device;
mod document;
mod keys;
mod publishing;
mod rotation;
