//! The gateway of some cells, one after the other: its state directory and address outlive it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::moments::{Moment, Place};
use crate::support::gateway::{Gateway, Setup};
use crate::support::handover::{Failpoint, respawning};
use crate::support::{port, servers};

/// A start of the server waits here while this pipe is there, and says so.
pub const HOLD: &str = "hold";
pub const HELD: &str = "held";

/// The size of a state directory that can be filled: a lane's history and bundles fit in.
const DISK: &str = "size=2m,mode=700";

/// What a gateway must be for a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    SameProcess,
    FreshProcess,
    /// A fresh process, and a server that must not run twice.
    Exclusive,
}

impl Kind {
    pub fn of(moment: Moment) -> Self {
        match moment.place() {
            Place::SameProcess => Self::SameProcess,
            Place::FreshProcess if moment.is_exclusive() => Self::Exclusive,
            Place::FreshProcess => Self::FreshProcess,
        }
    }
}

/// A gateway, and what the next one in its place is started with.
pub struct Site {
    pub kind: Kind,
    pub gateway: Gateway,
    pub failpoint: Failpoint,
    setup: Setup,
    dir: TempDir,
    disk: bool,
}

impl Site {
    /// Starts a gateway; in a thread of [`private_mounts`] its state directory is a small disk.
    pub fn start(kind: Kind, disk: bool) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("matrix-")
            .tempdir()
            .unwrap();
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        if disk {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(&state);
            assert!(mount.status().unwrap().success());
        }
        let failpoint = Failpoint::new();
        let server = match kind {
            Kind::Exclusive => servers::node_with_lock(&dir.path().join("lock")),
            _ => servers::node(),
        };
        let script = format!(
            "if [ -p {HOLD} ]; then : > {HELD}; read -r _ < {HOLD}; fi 2>/dev/null; exec \"$@\""
        );
        let command = ["sh", "-c", &script, "sh"].map(str::to_owned);
        let setup = respawning()
            .unwrap()
            .command(command.into_iter().chain(server))
            .state_dir(state)
            .port(port::private());
        let setup = match kind {
            Kind::SameProcess => setup.config("[restart]\nmode = \"in-process\""),
            Kind::FreshProcess => setup,
            Kind::Exclusive => setup.flag("--exclusive"),
        };
        let setup = failpoint.on(setup);
        Self {
            kind,
            gateway: setup.start(),
            failpoint,
            setup,
            dir,
            disk,
        }
    }

    /// Starts the next one where the last one has ended.
    pub fn start_again(&mut self) {
        self.gateway = self.setup.start();
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.disk {
            let mut umount = Command::new("umount");
            let _ = umount.arg("--lazy").arg(self.state()).status();
        }
    }
}

/// Gives this thread and all that it starts mounts of their own, which end with them; false where
/// that is not allowed.
pub fn private_mounts() -> bool {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_ok()
        && Command::new("mount")
            .args(["--make-rprivate", "/"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}
