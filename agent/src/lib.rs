//! The daemon vigild and the technician's vigil.
//!
//! Floors, top to bottom; imports only go down: daemon, then local and report, then link, command, network, update
//! and health, then audit, then identity, config, store and what serves all of them.

pub mod audit;
pub mod command;
pub mod config;
pub mod daemon;
pub mod health;
pub mod identity;
pub mod link;
pub mod local;
pub mod network;
pub mod proven;
pub mod record_log;
pub mod report;
pub mod store;
pub mod technician;
pub mod tls;
pub mod update;
