//! What `vigild` (and, for rescue, `vigil`) say to `vigil-updaterd` over its Unix socket: types and framing only.
//!
//! The updater answers every request with one response, in order. It never asks: what it needs fetched it names in
//! [`Response::Need`] when the courier asks [`Request::Next`]. A frame is two little-endian lengths, a JSON header
//! and a blob of bytes.

mod frame;
mod message;

pub use frame::{BLOB_BYTES, Decoder, FrameError, HEADER_BYTES, encode};
pub use message::{
    Contact, Control, Event, Failure, Fault, Fetch, Need, OutcomeStatus, PlanStatus, ProgressState,
    ReleaseId, Request, Response, SlotStatus, State, Trouble, TrustStatus, UpdateStatus, WIRE_VERSION,
};
