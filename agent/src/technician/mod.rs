//! The technician's `vigil`: asks the daemon over the local socket and shows the answer to a person.

mod client;
mod show;

pub use client::{AskError, ask};
pub use show::{audit, diagnosis, health, status, update};
