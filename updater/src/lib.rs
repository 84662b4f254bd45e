//! All that changes what the device boots: engine, slots, boot control, journal; and the daemon `vigil-updaterd`
//! around them.

pub mod release;
