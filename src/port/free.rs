//! A port for a sidecar that nobody else will take before the sidecar binds it.

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

/// Lowest port tried: above the ports that well-known services use.
const LOWEST: u16 = 10_240;

/// How many ports are tried before the kernel is asked for one.
const TRIES: u16 = 200;

/// Where the kernel takes ports for outgoing connections from, when it does not tell (the default of Linux).
const EPHEMERAL: u16 = 32_768;

/// A free TCP port on loopback.
///
/// It lies below the range from which the kernel serves outgoing connections: one of our own connections, made between
/// this choice and the sidecar's bind, would otherwise take the port away now and then.
///
/// # Errors
/// When not even the kernel has one.
pub fn private() -> io::Result<u16> {
    let below = ephemeral_start();
    if below > LOWEST {
        let span = below - LOWEST;
        let start = (std::collections::hash_map::RandomState::new().build_hasher().finish() % u64::from(span)) as u16;
        for step in 0..TRIES.min(span) {
            let port = LOWEST + (start + step) % span;
            if free(port) {
                return Ok(port);
            }
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr().map(|addr| addr.port())
}

fn free(port: u16) -> bool {
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
    let v6_free = v6.is_ok() || v6.is_err_and(|error| error.kind() != io::ErrorKind::AddrInUse);
    v6_free && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

fn ephemeral_start() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_ports_are_free_and_not_for_outgoing_connections() {
        for _ in 0..50 {
            let port = private().unwrap();
            assert!(port >= LOWEST && (port < ephemeral_start() || ephemeral_start() <= LOWEST), "{port}");
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
