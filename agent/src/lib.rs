//! The daemon vigild and the technician's vigil.

pub mod audit;
pub mod config;
pub mod health;
pub mod identity;
pub mod link;
pub mod store;
pub mod text;
pub mod tls;
