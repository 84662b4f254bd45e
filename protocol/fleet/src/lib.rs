//! The operator's end of Vigil.
