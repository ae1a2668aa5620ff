//! The `halfstep` program.
fn main() {}
