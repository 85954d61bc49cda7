//! How many descriptors this process may have, and how many of them clients may use. The kernel
//! always gives the lowest free number, so a number tells how many are in use below it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

/// Descriptors that clients and their upstreams leave to the rest: 144 connections of the control
/// socket, and as many as the rest was seen to need and half more: listeners on each thread, files
/// and sockets of the log and the service manager, pipes of sidecars, a hand-over, the watchdog.
pub const RESERVE: u64 = 400;

/// The part of a very low limit that is kept: one half.
const RESERVED_SHARE: u64 = 2;

/// How often it is looked whether something was closed: there is no event for that.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How many descriptors clients and upstreams may have where `limit` is the process's.
fn for_clients(limit: u64) -> u64 {
    limit - RESERVE.min(limit / RESERVED_SHARE)
}

fn limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// How many clients there may be at once, each with an upstream, where `wanted` are configured.
pub fn clients(wanted: usize) -> usize {
    let most = for_clients(limit()) / 2;
    wanted.min(usize::try_from(most).unwrap_or(usize::MAX))
}

/// Whether this descriptor is one of those that clients must leave to the rest.
pub fn is_reserved(descriptor: &impl AsRawFd) -> bool {
    u64::try_from(descriptor.as_raw_fd()).is_ok_and(|number| number >= for_clients(limit()))
}

/// Waits until clients may have one more descriptor.
pub async fn room() {
    while !has_room() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn has_room() -> bool {
    // Any descriptor would do: only its number counts.
    let next: Option<OwnedFd> = nix::unistd::dup(std::io::stderr()).ok();
    next.is_some_and(|next| !is_reserved(&next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_the_reserve_or_half_of_a_low_limit() {
        for (limit, left) in [(524_288, 523_888), (1024, 624), (256, 128), (0, 0)] {
            assert_eq!(for_clients(limit), left);
        }
        assert_eq!(clients(1), 1);
        assert!(has_room());
    }
}
