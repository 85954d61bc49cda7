//! Ports for one test alone.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range that the kernel hands to outgoing connections (32768 and up), so that no client
/// socket takes one.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// A port on 127.0.0.1 that nothing listens on now.
///
/// Test processes run side by side, so each begins at a place of its own; who still meets another
/// finds the port taken when it binds, and asks again.
pub fn private() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = std::process::id()
            .wrapping_mul(617)
            .wrapping_add(step.wrapping_mul(7))
            % COUNT;
        let port = u16::try_from(FIRST + place).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
