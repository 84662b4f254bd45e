//! The binary comes with the next commits.
fn main() {}
