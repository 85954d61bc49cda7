//! The front door's sockets across lives: taken over from the service manager, bound where missing,
//! stored for the next.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tracing::{info, warn};

use crate::config::Listen;
use crate::os::port::is_here;
use crate::proxy::{BindError, ListenSocket};
use crate::systemd::{Notifier, PassedFd};

/// Names in the fd store; the number says nothing about the place in the configuration, which may
/// change.
const PREFIX: &str = "listen-";

/// The sockets of this process with the names they are stored under.
#[derive(Debug)]
pub struct Listeners {
    held: Vec<HeldSocket>,
    notifier: Notifier,
    changed: bool,
    /// Names that the service manager is to forget, once it listens to this process.
    forgotten: Vec<String>,
}

/// Where the sockets of this process come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerOrigin {
    /// At least one of them was bound by this process, or by one before.
    Bound,
    /// A service manager holds them all.
    PassedOn,
}

#[derive(Debug)]
struct HeldSocket {
    socket: ListenSocket,
    /// None for what a socket unit passed: that one keeps its own.
    name: Option<String>,
}

impl Listeners {
    /// Takes over those of `passed` that the configuration asks for. What nobody asks for is closed
    /// and forgotten. What is still missing comes back, for [`change`](Self::change) to bind.
    pub fn adopt(
        wanted: &[Listen],
        passed: Vec<PassedFd>,
        notifier: Notifier,
    ) -> (Self, Vec<Listen>) {
        let mut forgotten = Vec::new();
        let mut held = Vec::new();
        for PassedFd { name, fd } in passed {
            let stored = name.starts_with(PREFIX).then(|| name.clone());
            match ListenSocket::adopt(fd).filter(|socket| is_wanted(wanted, socket)) {
                Some(socket) => held.push(HeldSocket {
                    socket,
                    name: stored,
                }),
                None => {
                    warn!(
                        "[gateway] a socket named {name} was passed on that the configuration does not ask for; closed"
                    );
                    forgotten.extend(stored);
                }
            }
        }
        forgotten.iter().for_each(|name| notifier.remove(name));
        // Port 0 was chosen by the kernel once, in an earlier process; the choice stands.
        let mut missing = wanted.to_vec();
        missing.retain(|listen| !held.iter().any(|one| chosen_by_kernel(listen, &one.socket)));
        let listeners = Self {
            held,
            notifier,
            changed: false,
            forgotten,
        };
        (listeners, missing)
    }

    /// Where the sockets among what was passed on listen.
    pub fn addresses_of(passed: &[PassedFd]) -> Vec<Listen> {
        let local = |passed: &PassedFd| ListenSocket::adopt(passed.fd.try_clone().ok()?)?.local();
        passed.iter().filter_map(local).collect()
    }

    /// Whether nothing is there yet that serves an address.
    pub fn lacks(&self, listen: &Listen) -> bool {
        !self.held.iter().any(|held| held.socket.serves(listen))
    }

    /// Binds what is missing. Nothing is closed yet.
    ///
    /// # Errors
    /// [`BindError`]; then nothing has changed.
    pub fn change(&mut self, wanted: &[Listen]) -> Result<(), BindError> {
        let missing = wanted.iter().filter(|listen| self.lacks(listen));
        let bound: Result<Vec<ListenSocket>, _> = missing.map(ListenSocket::bind).collect();
        for socket in bound? {
            tell_if_absent(&socket);
            let name = self.unused_name();
            self.notifier.store(&name, socket.as_fd());
            self.held.push(HeldSocket {
                socket,
                name: Some(name),
            });
            self.changed = true;
        }
        Ok(())
    }

    /// From here on the service manager listens to this process: it learns what changed while it
    /// did not.
    pub fn speak(&mut self, notifier: Notifier) {
        self.notifier = notifier;
        std::mem::take(&mut self.forgotten)
            .iter()
            .for_each(|name| notifier.remove(name));
        for held in &self.held {
            if let Some(name) = &held.name {
                // What it has already, it does not store twice (sd_pid_notify_with_fds(3)).
                notifier.store(name, held.socket.as_fd());
            }
        }
    }

    /// The sockets with the names that the service manager keeps them under, for a successor.
    pub fn to_hand_over(&self) -> Vec<(Option<String>, BorrowedFd<'_>)> {
        self.held
            .iter()
            .map(|held| (held.name.clone(), held.socket.as_fd()))
            .collect()
    }

    /// Closes what is not wanted any more.
    pub fn prune(&mut self, wanted: &[Listen]) {
        let notifier = self.notifier;
        let before = self.held.len();
        self.held.retain(|held| {
            let keep = is_wanted(wanted, &held.socket);
            if !keep {
                if let Some(name) = &held.name {
                    notifier.remove(name);
                    self.forgotten.push(name.clone());
                }
                // Nobody may connect to a socket that nobody accepts from. A path that is still
                // wanted leads to another one.
                if held
                    .socket
                    .local()
                    .is_none_or(|local| !wanted.contains(&local))
                {
                    held.socket.remove_path();
                }
                info!("[gateway] no longer listening on {}", shown(&held.socket));
            }
            keep
        });
        self.changed |= self.held.len() != before;
    }

    /// Whether the sockets are others than at the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// A second handle on each socket, for the serving threads.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn handles(&self) -> io::Result<Vec<ListenSocket>> {
        self.held
            .iter()
            .map(|held| held.socket.try_clone())
            .collect()
    }

    /// Where the front door really is.
    pub fn addresses(&self) -> Vec<String> {
        self.held.iter().map(|held| shown(&held.socket)).collect()
    }

    /// How many of them the service manager is to keep for the next process.
    pub fn stored(&self) -> usize {
        self.held.iter().filter(|held| held.name.is_some()).count()
    }

    /// Whether one of them belongs to somebody who passed it to this process, or to one before.
    pub fn are_passed_on(&self) -> bool {
        self.held.iter().any(|held| held.name.is_none())
    }

    /// Whether all of them belong to whoever passed them on.
    pub fn origin(&self) -> ListenerOrigin {
        match self.stored() {
            0 if !self.held.is_empty() => ListenerOrigin::PassedOn,
            _ => ListenerOrigin::Bound,
        }
    }

    /// Removes the paths of unix listeners, for an end after which nobody holds the sockets.
    pub fn remove_paths(&self) {
        for held in &self.held {
            if held.name.is_some() {
                held.socket.remove_path();
            }
        }
    }

    fn unused_name(&self) -> String {
        let used = |name: &String| {
            self.held
                .iter()
                .any(|held| held.name.as_ref() == Some(name))
        };
        (0_usize..)
            .map(|number| format!("{PREFIX}{number}"))
            .find(|name| !used(name))
            .unwrap_or_default()
    }
}

fn is_wanted(wanted: &[Listen], socket: &ListenSocket) -> bool {
    wanted
        .iter()
        .any(|listen| socket.serves(listen) || chosen_by_kernel(listen, socket))
}

/// Whether the configuration says port 0, and this socket has what the kernel chose for it.
fn chosen_by_kernel(listen: &Listen, socket: &ListenSocket) -> bool {
    matches!((listen, socket.local()), (Listen::Tcp(wanted), Some(Listen::Tcp(local))) if wanted.port() == 0 && wanted.ip() == local.ip())
}

/// A mistyped address is bound like one that comes later: a person must be able to tell.
fn tell_if_absent(socket: &ListenSocket) {
    if let Some(Listen::Tcp(address)) = socket.local()
        && !is_here(address.ip())
    {
        warn!(
            "[gateway] this machine does not have the address {} now: clients reach {address} once it has",
            address.ip()
        );
    }
}

fn shown(socket: &ListenSocket) -> String {
    let local = socket.local().map(|listen| listen.to_string());
    local.unwrap_or_else(|| "an unnamed socket".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_listener_whose_path_was_removed_is_bound_again_and_the_path_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a socket");
        let wanted = [Listen::Unix(path.clone())];
        let (mut listeners, missing) = Listeners::adopt(&wanted, Vec::new(), Notifier::default());
        listeners.change(&missing).unwrap();
        listeners.take_changed();
        listeners.prune(&wanted);
        assert!(
            !listeners.take_changed(),
            "nothing is to be done about a socket that serves"
        );
        std::fs::remove_file(&path).unwrap();
        listeners.change(&wanted).unwrap();
        listeners.prune(&wanted);
        assert!(listeners.take_changed());
        assert_eq!(listeners.addresses().len(), 1);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        listeners.prune(&[]);
        assert!(!path.exists());
    }
}
