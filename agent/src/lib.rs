//! The daemon vigild and the technician's vigil.

pub mod config;
pub mod identity;
