//! The gateway: a restart-safe front door.
fn main() {}
