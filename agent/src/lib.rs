//! The daemon vigild and the technician's vigil.

pub mod config;
pub mod health;
pub mod identity;
pub mod network;
pub mod text;
