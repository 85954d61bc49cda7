//! Leases: work that is not a request, such as a backup or a migration, and that a drain waits for.
//! Each belongs to a process and to a connection on the control socket. It ends with them, or after
//! its time, so that abandoned work does not block a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::option_future::or_never;
use crate::control::access::Caller;
use crate::control::protocol::{
    DrainCause, DrainEvent, EventName, Failure, FailureCode, Lease, LeaseStatus, ReleaseCause,
    ReleaseNotice,
};
use crate::control::server::{HeldConnection, OWN_MAX, Reply};
use crate::os::mutex::lock;
use crate::os::process::{Ended, PidFd};

/// The most leases at once: a quarter of the connections that the control socket takes, so that
/// gatewayctl can always connect.
const LEASES_MAX: usize = OWN_MAX / 4;

/// All leases of this process.
#[derive(Debug, Default)]
pub struct Leases {
    held: Mutex<LeaseTable>,
    /// Changes when a lease is released.
    released: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct LeaseTable {
    entries: BTreeMap<u64, LeaseEntry>,
    count: u64,
}

#[derive(Debug)]
struct LeaseEntry {
    why: String,
    caller: Caller,
    since: Instant,
    until: Option<Instant>,
    connection: HeldConnection,
}

/// The leases at one moment: a drain that begins then waits for these.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    leases: Arc<Leases>,
    numbers: BTreeSet<u64>,
}

impl Leases {
    /// Grants a lease and answers the client. The lease ends with its connection, with the client's
    /// process where that is known, or after `ttl`.
    pub fn grant(
        self: &Arc<Self>,
        why: String,
        ttl: Option<Duration>,
        caller: Caller,
        reply: Reply,
    ) {
        let pid = caller.pid();
        // The connection is open, so the process that made it lives or has given it on; without a
        // pidfd, the connection must do.
        let process = (pid != 0)
            .then(|| PidFd::open(pid).ok())
            .flatten()
            .map(|process| process.ended());
        let mut table = lock(&self.held);
        if table.entries.len() >= LEASES_MAX {
            let message =
                format!("there are {LEASES_MAX} leases already: gatewayctl status shows them");
            return reply.fail(Failure {
                code: FailureCode::Rejected,
                message,
            });
        }
        table.count += 1;
        let number = table.count;
        let Some(connection) = reply.hold(&Lease { lease: number, pid }) else {
            return;
        };
        let gone = connection.gone();
        let since = Instant::now();
        let until = ttl.map(|ttl| since + ttl);
        info!(
            "[gateway] lease {number} taken by {}: {why}",
            caller.holder()
        );
        table.entries.insert(
            number,
            LeaseEntry {
                why,
                caller,
                since,
                until,
                connection,
            },
        );
        drop(table);
        let leases = Arc::clone(self);
        tokio::spawn(async move {
            let (how, cause) = tokio::select! {
                () = gone.cancelled() => ("released", None),
                () = or_never(process.as_ref().map(Ended::wait)) => {
                    ("released, for its process has ended", None)
                }
                () = or_never(until.map(sleep_until)) => ("aged out", Some(ReleaseCause::Ttl)),
            };
            leases.release(number, how, cause);
        });
    }

    /// Ends a lease; its owner hears the `cause`, if it is not their own doing.
    fn release(&self, number: u64, how: &str, cause: Option<ReleaseCause>) {
        let Some(entry) = lock(&self.held).entries.remove(&number) else {
            return;
        };
        let held = entry.since.elapsed().as_secs();
        info!(
            "[gateway] lease {number} of {} {how} after {held} s: {}",
            entry.caller.holder(),
            entry.why
        );
        if let Some(cause) = cause {
            let notice = serde_json::to_value(ReleaseNotice { cause }).unwrap_or_default();
            entry.connection.event(EventName::Released, notice);
        }
        self.released.send_replace(());
    }

    /// The leases at this moment.
    pub fn claim(self: &Arc<Self>) -> Claim {
        Claim {
            leases: Arc::clone(self),
            numbers: lock(&self.held).entries.keys().copied().collect(),
        }
    }

    /// Every lease, for `status`.
    pub fn status(&self) -> Vec<LeaseStatus> {
        let now = Instant::now();
        let status = |(number, entry): (&u64, &LeaseEntry)| LeaseStatus {
            lease: *number,
            why: entry.why.clone(),
            pid: entry.caller.pid(),
            held_ms: millis(now - entry.since),
            left_ms: entry.until.map(|until| millis(until - now)),
        };
        lock(&self.held).entries.iter().map(status).collect()
    }
}

impl Claim {
    /// Waits until all are released.
    pub async fn released(&self) {
        let mut changed = self.leases.released.subscribe();
        // The sender lives as long as the leases, which are held here: an error cannot come.
        while self.count() > 0 && changed.changed().await.is_ok() {}
    }

    /// How many are still held.
    pub fn count(&self) -> u64 {
        self.map(|_| ()).len() as u64
    }

    /// The leases that are still held, as in "lease of pid 7 for 3 s: backup".
    pub fn blockers(&self) -> Vec<String> {
        self.map(|entry| {
            format!(
                "lease of {} for {} s: {}",
                entry.caller.holder(),
                entry.since.elapsed().as_secs(),
                entry.why
            )
        })
    }

    /// Tells the owners that a drain waits for them, for `left`.
    pub fn tell_drain(&self, cause: DrainCause, left: Option<Duration>) {
        let notice = DrainEvent {
            cause,
            left_ms: left.map(millis),
        };
        let payload = serde_json::to_value(notice).unwrap_or_default();
        self.map(|entry| entry.connection.event(EventName::Drain, payload.clone()));
    }

    /// Tells the owners that nothing waits for them any longer.
    pub fn tell_deadline(&self) {
        self.map(|entry| entry.connection.event(EventName::Deadline, Value::Null));
    }

    fn map<T>(&self, of: impl FnMut(&LeaseEntry) -> T) -> Vec<T> {
        let table = lock(&self.leases.held);
        self.numbers
            .iter()
            .filter_map(|number| table.entries.get(number))
            .map(of)
            .collect()
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::control::client::Client;
    use crate::control::protocol::{InhibitParams, Method};
    use crate::control::server::{self, Call};

    struct LeaseFixture {
        dir: tempfile::TempDir,
        calls: mpsc::Receiver<Call>,
        leases: Arc<Leases>,
    }

    fn fixture() -> LeaseFixture {
        let dir = tempfile::tempdir().unwrap();
        let listener =
            UnixListener::from_std(server::bind(&dir.path().join("control.sock")).unwrap())
                .unwrap();
        let (sender, calls) = mpsc::channel(8);
        tokio::spawn(server::serve(
            listener,
            sender,
            Arc::default(),
            CancellationToken::new(),
        ));
        LeaseFixture {
            dir,
            calls,
            leases: Arc::default(),
        }
    }

    impl LeaseFixture {
        async fn take(&mut self, ttl: Option<Duration>, pid: u32) -> Client {
            let caller = Caller::Local {
                uid: 0,
                pid: i32::try_from(pid).unwrap(),
            };
            let mut client = Client::connect(&self.dir.path().join("control.sock"))
                .await
                .unwrap();
            let method = Method::Inhibit(InhibitParams {
                why: "backup".into(),
                ttl_ms: None,
            });
            let (answer, ()) = tokio::join!(client.call::<Lease>(&method, |_| ()), async {
                let reply = self.calls.recv().await.unwrap().reply;
                self.leases.grant("backup".into(), ttl, caller, reply);
            });
            assert_eq!(answer.unwrap().pid, pid);
            client
        }
    }

    #[tokio::test]
    async fn a_claim_waits_for_those_of_its_moment_only() {
        let mut fixture = fixture();
        assert_eq!(fixture.leases.claim().count(), 0);
        fixture.leases.claim().released().await;
        let mut first = fixture.take(None, 0).await;
        let claim = fixture.leases.claim();
        let _later = fixture.take(None, 0).await;
        assert_eq!(
            (claim.blockers(), fixture.leases.status().len()),
            (vec!["lease of pid 0 for 0 s: backup".to_owned()], 2)
        );
        claim.tell_drain(DrainCause::Restart, Some(Duration::from_secs(3)));
        claim.tell_deadline();
        let (event, payload) = first.event().await.unwrap().unwrap();
        assert_eq!(
            (event, payload),
            (
                EventName::Drain,
                serde_json::json!({"cause": "restart", "leftMs": 3000})
            )
        );
        assert_eq!(first.event().await.unwrap().unwrap().0, EventName::Deadline);
        drop(first);
        claim.released().await;
        assert_eq!((claim.count(), fixture.leases.status().len()), (0, 1));
    }

    #[tokio::test]
    async fn it_goes_with_its_process_and_when_its_time_is_over() {
        let mut fixture = fixture();
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let _open = fixture.take(None, child.id()).await;
        let claim = fixture.leases.claim();
        child.kill().unwrap();
        claim.released().await;
        child.wait().unwrap();
        let mut aged = fixture
            .take(Some(Duration::from_millis(20)), std::process::id())
            .await;
        fixture.leases.claim().released().await;
        assert_eq!(aged.event().await.unwrap().unwrap().0, EventName::Released);
    }
}
