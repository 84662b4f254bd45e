//! The daemon vigild and the technician's vigil.
