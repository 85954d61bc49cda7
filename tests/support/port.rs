//! Ports for one test alone.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range that the kernel hands to outgoing connections (32768 and up), so that no client
/// socket takes one.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// What tells other test processes that a port is in use here, until this process ends.
static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port on 127.0.0.1 that nothing listens on now, and that no other test is given.
pub fn private() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Test processes run side by side, so each begins at a place of its own.
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = std::process::id()
            .wrapping_mul(617)
            .wrapping_add(step.wrapping_mul(7))
            % COUNT;
        let port = u16::try_from(FIRST + place).unwrap();
        let name = SocketAddr::from_abstract_name(format!("gateway-test-port-{port}")).unwrap();
        let Ok(reservation) = UnixListener::bind_addr(&name) else {
            continue;
        };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            RESERVED.lock().unwrap().push(reservation);
            return port;
        }
    }
}
