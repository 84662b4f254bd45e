//! The operator's end of Vigil: see the fleet, ask it, check what it says.
//!
//! `answers`, `check`, `config`, `filter`, `fleet`, `order`, `plan`, `rollout` and `text` decide and are plain functions; `link` moves bytes; `run` holds one small file
//! for each subcommand.

pub mod answers;
pub mod check;
pub mod config;
pub mod failure;
pub mod filter;
pub mod fleet;
pub mod keys;
pub mod known;
pub mod link;
pub mod order;
pub mod plan;
pub mod rollout;
pub mod run;
pub mod settings;
pub mod text;
mod tls;
