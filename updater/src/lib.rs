//! All that changes what the device boots: engine, slots, boot control, journal; and the daemon `vigil-updaterd`
//! around them.

pub mod boot;
pub mod config;
pub mod engine;
pub mod events;
pub mod evidence;
mod extent;
pub mod floor;
pub mod hook;
pub mod journal;
pub mod memory;
pub mod release;
pub mod sandbox;
pub mod service;
pub mod slot;
pub mod stash;
pub mod trust;
pub mod watchdog;
pub mod witness;
