//! The release engineer's end of Vigil.
