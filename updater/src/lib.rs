//! All that changes what the device boots: engine, slots, boot control, journal.
