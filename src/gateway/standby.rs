//! A duplicate under a supervisor stands by: if it ended, the supervisor would start it again.
//!
//! It takes over when it gets the lock, for which the kernel queues all processes that stand by.
//! Pids, records and clocks only tell people for whom it waits; they decide nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Interval, interval, timeout};
use tracing::{info, warn};

use super::config_source::{Material, with_env_files};
use super::option_future::or_never;
use super::signals::{self, SignalRequest, Signals};
use crate::config::{self, Env, Overrides};
use crate::os::process::PidFd;
use crate::stale;
use crate::state::lock::Lock;
use crate::state::owner::Owner;
use crate::state::paths::Paths;
use crate::supervisor::{Supervisor, SupervisorVerdict};
use crate::systemd::{Notifier, STANDING_BY};

/// How often it reads the owner's record again: an owner that has handed over lives on for a while.
const LOOK: Duration = Duration::from_secs(2);

/// How long the end of the owner is waited for after the lock is free: a process that dies releases
/// its files one by one, and its sockets are free when it has ended. After that the lock alone
/// counts.
const OWNER_END: Duration = Duration::from_secs(1);

/// Whether a duplicate stands by: a supervisor would start it again after an exit. On a terminal it
/// ends with a message instead.
pub fn waits(notifier: Notifier, verdict: &SupervisorVerdict) -> bool {
    verdict.supervisor.is_service()
        || notifier.active() && verdict.supervisor != Supervisor::Terminal
}

/// Stands by until it has the lock; none when it was asked to stop. The service manager is told that
/// the process is ready, and for whom it stands by.
///
/// # Errors
/// When the lock cannot be waited for.
pub async fn stand_by(
    paths: &Paths,
    notifier: Notifier,
    signals: &mut Signals,
) -> io::Result<Option<Lock>> {
    let state = paths.state.as_path();
    let mut lock = queue(state.to_owned())?;
    let mut ending = pin!(stale::end_leftovers(&paths.control));
    let mut look = interval(LOOK);
    let mut watchdog = notifier.watchdog_interval().map(interval);
    let mut watched: Option<Watched> = None;
    let mut said = String::new();
    loop {
        tokio::select! {
            biased;
            taken = &mut lock => {
                let lock = taken.unwrap_or_else(|_| Err(io::Error::other("the thread that waited for the lock is gone")))?;
                if let Some(owner) = watched {
                    let _ = timeout(OWNER_END, owner.ended()).await;
                }
                info!("[gateway] the gateway before is gone: taking over");
                notifier.status("taking over");
                return Ok(Some(lock));
            }
            asked = signals.next() => match asked {
                SignalRequest::Stop | SignalRequest::Interrupt | SignalRequest::HangUp => {
                    info!("[gateway] no longer standing by");
                    notifier.stopping("no longer standing by");
                    return Ok(None);
                }
                SignalRequest::Reload | SignalRequest::Restart | SignalRequest::Respawn => info!("[gateway] {said}: there is nothing to restart or to reload here"),
            },
            () = or_never(watched.as_ref().map(Watched::ended)) => {
                watched = None;
                look.reset_immediately();
            }
            _ = look.tick() => {
                watched = Watched::open(state);
                let text = match &watched {
                    Some(watched) => format!("{STANDING_BY}pid {}", watched.pid),
                    None => format!("{STANDING_BY}the process that holds {}", state.join("gateway.lock").display()),
                };
                if text != said {
                    info!("[gateway] {text}");
                    notifier.ready(&text);
                    said = text;
                }
            }
            _ = or_never(watchdog.as_mut().map(Interval::tick)) => notifier.watchdog(),
            () = &mut ending => {}
        }
    }
}

/// The configuration as it is now: standing by may have taken days. If it cannot be read, the
/// fallback of a start takes its place; one with another state directory is ignored.
pub fn read_again(before: Material, flags: &Overrides, paths: &Paths) -> Material {
    let env = Env::real();
    let read = match config::load(flags, &env) {
        Ok(next) => {
            let state_dir = next.config.gateway.state_dir.as_deref();
            if Paths::of_process(&env, &next.instance, state_dir) != *paths {
                warn!(
                    "[gateway] the configuration has another instance or state directory now: going on with the one read before"
                );
                return before;
            }
            Ok(with_env_files(next, &env))
        }
        Err(error) => Err(error.to_string()),
    };
    before
        .clone()
        .again(read, flags, &env, &paths.state)
        .unwrap_or(before)
}

/// Waits for the lock on a thread of its own, which ends with the process if need be.
fn queue(state: PathBuf) -> io::Result<oneshot::Receiver<io::Result<Lock>>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("standby".to_owned())
        .spawn(move || {
            // The loop handles the signals.
            signals::hold();
            // If the gateway was stopped meanwhile, nothing receives the lock, and it is released.
            let _ = sender.send(Lock::wait(&state));
        })?;
    Ok(receiver)
}

/// The owner that the record names, proven to be the process that wrote it.
struct Watched {
    pid: u32,
    process: PidFd,
}

impl Watched {
    fn open(state: &Path) -> Option<Self> {
        let owner = Owner::read(state)?;
        let process = PidFd::open(owner.pid).ok()?;
        // Read after the descriptor is open: before, the pid could have been given again.
        (owner.lives() == Some(true)).then_some(Self {
            pid: owner.pid,
            process,
        })
    }

    async fn ended(&self) {
        self.process.ended().wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervised_duplicate_waits_and_a_person_gets_an_answer() {
        let parent = "bash".to_owned();
        for (supervisor, expected) in [
            (Supervisor::S6, true),
            (Supervisor::Container { main: true }, true),
            (Supervisor::Container { main: false }, false),
            (Supervisor::Terminal, false),
            (Supervisor::Init, false),
            (Supervisor::Unknown { parent }, false),
        ] {
            let reason = String::new();
            let verdict = SupervisorVerdict { supervisor, reason };
            let waits = waits(Notifier::from_parts(None, 0), &verdict);
            assert_eq!(waits, expected, "{verdict}");
        }
    }

    #[tokio::test]
    async fn the_lock_comes_to_one_of_those_who_queue() {
        let dir = tempfile::tempdir().unwrap();
        let held = Lock::take(dir.path()).unwrap();
        let [mut one, mut two] = [(); 2].map(|()| queue(dir.path().to_owned()).unwrap());
        drop(held);
        let (first, mut rest) = tokio::select! {
            lock = &mut one => (lock, two),
            lock = &mut two => (lock, one),
        };
        let first = first.unwrap().unwrap();
        assert!(rest.try_recv().is_err(), "one at a time");
        drop(first);
        rest.await.unwrap().unwrap();
    }

    #[test]
    fn a_recycled_pid_is_not_watched() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Watched::open(dir.path()).is_none());
        let pid = std::process::id();
        let start = crate::state::owner::start_time(pid).unwrap();
        for (start_time, watched) in [(start, true), (start - 1, false)] {
            let text = format!(
                r#"{{"pid":{pid},"startTime":{start_time},"bootId":"","instance":"a","listeners":[],"command":""}}"#
            );
            std::fs::write(dir.path().join("owner.json"), text).unwrap();
            assert_eq!(Watched::open(dir.path()).is_some(), watched);
        }
    }
}
