//! The technician's `vigil`: asks the daemon over the local socket and shows the answer to a person; where the daemon is
//! gone, it speaks to the updater itself.

mod client;
mod show;
mod updater;

pub use client::{AskError, ask};
pub use show::{audit, diagnosis, health, status, update};
pub use updater::{Install, Updater, UpdaterError};
