//! The front door's sockets across lives: taken over from the service manager, bound where missing,
//! stored for the next.

use tracing::{info, warn};

use crate::config::Listen;
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
        let held = passed
            .into_iter()
            .filter_map(|PassedFd { name, fd }| {
                let stored = name.starts_with(PREFIX);
                let socket = ListenSocket::adopt(fd)
                    .filter(|socket| wanted.iter().any(|listen| socket.serves(listen) || chosen_by_kernel(listen, socket)));
                if socket.is_none() {
                    warn!("[gateway] a socket named {name} was passed on that the configuration does not ask for; closed");
                    forgotten.extend(stored.then(|| name.clone()));
                }
                Some(HeldSocket { socket: socket?, name: stored.then_some(name) })
            })
            .collect();
        forgotten.iter().for_each(|name| notifier.remove(name));
        let listeners = Self {
            held,
            notifier,
            changed: false,
            forgotten,
        };
        // Port 0 was chosen by the kernel once, in an earlier process; the choice stands.
        let chosen = |listen: &&Listen| {
            listeners
                .held
                .iter()
                .any(|held| chosen_by_kernel(listen, &held.socket))
        };
        let missing: Vec<Listen> = wanted
            .iter()
            .filter(|listen| !chosen(listen))
            .cloned()
            .collect();
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
        let missing: Vec<&Listen> = wanted.iter().filter(|listen| self.lacks(listen)).collect();
        let bound: Vec<ListenSocket> = missing
            .iter()
            .map(|listen| ListenSocket::bind(listen))
            .collect::<Result<_, _>>()?;
        for socket in bound {
            use std::os::fd::AsFd;
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
        use std::os::fd::AsFd;
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
    pub fn to_hand_over(&self) -> Vec<(Option<String>, std::os::fd::BorrowedFd<'_>)> {
        use std::os::fd::AsFd;
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
            // Port 0 in the configuration is whatever the kernel chose.
            let keep = wanted
                .iter()
                .any(|listen| held.socket.serves(listen) || chosen_by_kernel(listen, &held.socket));
            if !keep {
                if let Some(name) = &held.name {
                    notifier.remove(name);
                    self.forgotten.push(name.clone());
                }
                // Nobody may connect to a socket that nobody accepts from. A path that is still
                // wanted leads to another one.
                if let Some(local @ Listen::Unix(path)) = &held.socket.local()
                    && !wanted.contains(local)
                {
                    let _ = std::fs::remove_file(path);
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
    pub fn handles(&self) -> std::io::Result<Vec<ListenSocket>> {
        self.held
            .iter()
            .map(|held| held.socket.try_clone())
            .collect()
    }

    /// Where the front door really is.
    pub fn addresses(&self) -> Vec<String> {
        self.held.iter().map(|held| shown(&held.socket)).collect()
    }

    /// Removes the paths of unix listeners, for an end after which nobody holds the sockets.
    pub fn remove_paths(&self) {
        for held in &self.held {
            if let (Some(Listen::Unix(path)), true) = (held.socket.local(), held.name.is_some()) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn unused_name(&self) -> String {
        let used = |name: &str| {
            self.held
                .iter()
                .any(|held| held.name.as_deref() == Some(name))
        };
        (0..)
            .map(|number: usize| format!("{PREFIX}{number}"))
            .find(|name| !used(name))
            .unwrap_or_default()
    }
}

fn chosen_by_kernel(listen: &Listen, socket: &ListenSocket) -> bool {
    matches!((listen, socket.local()), (Listen::Tcp(wanted), Some(Listen::Tcp(local))) if wanted.port() == 0 && wanted.ip() == local.ip())
}

fn shown(socket: &ListenSocket) -> String {
    socket.local().map_or_else(
        || "an unnamed socket".to_owned(),
        |listen| listen.to_string(),
    )
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
