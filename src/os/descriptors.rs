//! How many descriptors this process may have, and how many of them clients may use. The kernel
//! always gives the lowest free number, so a number tells how many are in use below it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

/// Descriptors that clients and their upstreams leave to the rest: 144 connections of the control
/// socket, [`CROWD`] for clients beyond the limit, and as many as the rest was seen to need and half
/// more: listeners on each thread, files and sockets of the log and the service manager, pipes of
/// sidecars, a hand-over, the watchdog.
const RESERVE: u64 = 464;

/// Those of them that clients beyond the limit may have, while they are turned away.
const CROWD: u64 = 64;

/// The part of a low reserve that they may have: a quarter.
const CROWD_SHARE: u64 = 4;

/// Descriptors that the gateway had before the first client, up to a server or two: theirs are the
/// lowest numbers, so that clients have fewer below the reserve.
const OWN: u64 = 64;

/// The part of a low limit's numbers that are its own at most: a quarter.
const OWN_SHARE: u64 = 4;

/// The part of a very low limit that is kept: one half.
const RESERVED_SHARE: u64 = 2;

/// How often it is looked whether something was closed: there is no event for that.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Who may have a descriptor, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Clients and their upstreams.
    Clients,
    /// Clients beyond the limit, too.
    Crowd,
    /// Neither of them.
    Rest,
}

/// How many descriptors clients and upstreams may have where `limit` is the process's.
fn for_clients(limit: u64) -> u64 {
    limit - RESERVE.min(limit / RESERVED_SHARE)
}

/// How many clients may be beyond the limit where `limit` is the process's.
fn for_crowd(limit: u64) -> u64 {
    CROWD.min((limit - for_clients(limit)) / CROWD_SHARE)
}

fn limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// How many clients there may be at once, each with an upstream, where `wanted` are configured.
pub fn clients(wanted: usize) -> usize {
    wanted.min(allowed(limit()))
}

/// How many clients a process with this limit may have.
pub fn allowed(limit: u64) -> usize {
    let numbers = for_clients(limit);
    let most = (numbers - OWN.min(numbers / OWN_SHARE)) / 2;
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// How many descriptors `clients` need, each with an upstream, and the rest beside them.
pub fn needed(clients: usize) -> u64 {
    (clients as u64)
        .saturating_mul(2)
        .saturating_add(RESERVE + OWN)
}

/// How many clients there may be beyond the limit.
pub fn crowd() -> usize {
    usize::try_from(for_crowd(limit())).unwrap_or(0)
}

/// Whether clients had more than half of their descriptors left when this one was made.
pub fn leaves_room(descriptor: &impl AsRawFd) -> bool {
    let number = u64::try_from(descriptor.as_raw_fd()).unwrap_or(0);
    number < for_clients(limit()) / 2
}

/// Whose this descriptor is.
pub fn share(descriptor: &impl AsRawFd) -> Share {
    share_of(u64::try_from(descriptor.as_raw_fd()).unwrap_or(0), limit())
}

fn share_of(number: u64, limit: u64) -> Share {
    let clients = for_clients(limit);
    match number {
        _ if number < clients => Share::Clients,
        _ if number < clients + for_crowd(limit) => Share::Crowd,
        _ => Share::Rest,
    }
}

/// Waits until clients beyond the limit may have one more descriptor.
pub async fn room() {
    while !has_room() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn has_room() -> bool {
    // Any descriptor would do: only its number counts.
    let next: Option<OwnedFd> = nix::unistd::dup(std::io::stderr()).ok();
    next.is_some_and(|next| share(&next) != Share::Rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_the_reserve_or_half_of_a_low_limit() {
        for (limit, left, beyond) in [
            (524_288, 523_824, 64),
            (1024, 560, 64),
            (256, 128, 32),
            (0, 0, 0),
        ] {
            assert_eq!(for_clients(limit), left);
            assert_eq!(for_crowd(limit), beyond);
        }
        for clients in [300, 10_000] {
            assert_eq!(allowed(needed(clients)), clients);
            assert!(allowed(needed(clients) - 1) < clients);
        }
        assert_eq!(allowed(256), 48);
        for (number, whose) in [
            (127, Share::Clients),
            (128, Share::Crowd),
            (159, Share::Crowd),
            (160, Share::Rest),
        ] {
            assert_eq!(share_of(number, 256), whose);
        }
        assert_eq!(clients(1), 1);
        assert!(has_room());
    }
}
