//! The contract both ends of Vigil speak: topics, messages, envelopes, Merkle proofs and notes.
//!
//! No I/O, no async, no clock: every function is given what it decides on.

#[cfg(feature = "schema")]
pub mod asyncapi;
pub mod authorize;
pub mod command;
pub mod diagnosis;
pub mod envelope;
pub mod keys;
pub mod limits;
pub mod merkle;
pub mod note;
pub mod operators;
pub mod replay;
#[cfg(feature = "schema")]
pub mod schema;
pub mod state;
pub mod topic;
pub mod trusted;
