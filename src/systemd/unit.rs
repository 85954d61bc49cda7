//! What a manager knows about the unit of a process.

use std::time::Duration;

use tokio::time::timeout;
use zbus::Connection;

use super::words::{NotifyAccess, RestartPolicy, Word};
use super::{ANSWER, Properties, bus};
use crate::config::Env;
use crate::state::paths::Scope;

/// A service as its manager sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFacts {
    /// Its name, as in "gateway.service".
    pub unit: String,
    /// Whether it belongs to a user's manager.
    pub user: bool,
    /// Its main process; 0 when none runs.
    pub main_pid: u32,
    /// Restart=
    pub restart: Word<RestartPolicy>,
    /// NotifyAccess=
    pub notify_access: Word<NotifyAccess>,
    /// TimeoutStopSec=; none for infinity.
    pub timeout_stop: Option<Duration>,
    /// WatchdogSec=; none when it is off.
    pub watchdog: Option<Duration>,
    /// How many descriptors its fd store holds.
    pub n_fd_store: u32,
    /// How many it may hold: FileDescriptorStoreMax=
    pub fd_store_max: u32,
    /// Whether the manager stops it now, and starts nothing afterwards.
    pub stops: bool,
    /// Whether its fd store outlives a stop (FileDescriptorStorePreserve=yes).
    pub preserves_store: bool,
    /// Its socket units: they hold listeners while it does not run.
    pub sockets: Vec<String>,
}

impl UnitFacts {
    /// Whether it is started again after its main process ended with 0.
    pub fn relaunches(&self) -> bool {
        matches!(
            self.restart,
            Word::Known(RestartPolicy::Always | RestartPolicy::OnSuccess)
        )
    }

    /// Whether its main process may name another one (`MAINPID=`).
    pub fn hears_main(&self) -> bool {
        matches!(self.notify_access, Word::Known(_))
    }

    /// Whether listeners survive the end that its main process comes to now.
    pub fn holds_after_end(&self) -> bool {
        !self.sockets.is_empty() || self.n_fd_store > 0 && (!self.stops || self.preserves_store)
    }

    /// Whether listeners survive the end of its main process.
    pub fn holds_listeners(&self) -> bool {
        self.n_fd_store > 0 || !self.sockets.is_empty()
    }
}

/// What the managers of the machine and of this user say about the service that `pid` belongs to.
/// None within [`ANSWER`] when there is no systemd, nobody answers, or the process is in no
/// service. dbus-daemon answers no user that it cannot look up, which a dynamic one may be.
pub async fn facts_of(pid: u32) -> Option<UnitFacts> {
    // The system's manager takes everything below a user's manager for one service,
    // user@UID.service: the user's own knows better.
    let (user, system) = tokio::join!(ask(Scope::User, pid), ask(Scope::System, pid));
    match (user, system) {
        (Some(user), Some(system)) if user.main_pid != pid && system.main_pid == pid => {
            Some(system)
        }
        (user, system) => user.or(system),
    }
}

async fn ask(scope: Scope, pid: u32) -> Option<UnitFacts> {
    let asked = async {
        let connection = bus::connect(scope, &Env::real()).await.ok()?;
        read(&connection, scope, pid).await.ok().flatten()
    };
    timeout(ANSWER, asked).await.ok().flatten()
}

async fn read(connection: &Connection, scope: Scope, pid: u32) -> zbus::Result<Option<UnitFacts>> {
    let manager = bus::SystemdManagerProxy::new(connection).await?;
    let said = Properties::read(connection, manager.get_unit_by_pid(pid).await?).await?;
    let unit = said.text("Id");
    let stops = match said.job() {
        Some(job) => bus::job_type(connection, job).await? == "stop",
        None => false,
    };
    Ok(unit.ends_with(".service").then(|| UnitFacts {
        unit,
        user: scope == Scope::User,
        main_pid: said.number("MainPID"),
        restart: said.text("Restart").into(),
        notify_access: said.text("NotifyAccess").into(),
        timeout_stop: finite(said.number("TimeoutStopUSec")),
        watchdog: finite(said.number("WatchdogUSec")).filter(|time| !time.is_zero()),
        n_fd_store: said.number("NFileDescriptorStore"),
        fd_store_max: said.number("FileDescriptorStoreMax"),
        stops,
        preserves_store: said.text("FileDescriptorStorePreserve") == "yes",
        sockets: said.sockets(),
    }))
}

/// systemd writes infinity as the largest number.
fn finite(usec: u64) -> Option<Duration> {
    (usec != u64::MAX).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_the_words_of_systemd() {
        let facts = |restart: &str, access: &str| UnitFacts {
            restart: restart.into(),
            notify_access: access.into(),
            ..UnitFacts::default()
        };
        assert!(facts("always", "main").relaunches() && facts("on-success", "none").relaunches());
        assert!(!facts("on-failure", "all").relaunches() && !facts("", "").relaunches());
        assert!(facts("no", "main").hears_main() && !facts("no", "none").hears_main());
        assert_eq!(finite(u64::MAX), None);
        assert_eq!(finite(30_000_000), Some(Duration::from_secs(30)));
    }

    #[tokio::test]
    async fn a_process_that_is_in_no_service_has_no_facts_and_nobody_waits() {
        let begun = std::time::Instant::now();
        assert_eq!(facts_of(u32::MAX - 1).await, None);
        assert!(begun.elapsed() < ANSWER * 2, "{:?}", begun.elapsed());
    }
}
