//! What vigild and vigil-updaterd say to each other: types and framing.
