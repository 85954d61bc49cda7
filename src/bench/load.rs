//! An open-loop load: requests leave at a constant rate, whatever becomes of those before. A server that
//! stands still slows nothing down, and each request counts from the moment when it was due: what clients
//! wait is seen in full (a load that waits for answers leaves just those requests out, which is called
//! coordinated omission).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::http::{ClientConnection, Lost, WholeAnswer};
use super::load_report::{LoadReport, LoadTally};
use crate::config::Listen;

/// A client gives up so long after its request was due.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the load does.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    pub listen: Listen,
    pub path: String,
    /// Requests a second on a new connection each, and as many on the kept ones.
    pub per_second: u32,
    /// How many connections are kept.
    pub kept: u32,
}

/// A load under way, on a thread of its own: what else this process does makes it late by nothing.
#[derive(Debug)]
pub struct LoadRun {
    stop: CancellationToken,
    report: oneshot::Receiver<LoadReport>,
}

impl LoadRun {
    pub fn start(plan: LoadPlan) -> std::io::Result<Self> {
        let stop = CancellationToken::new();
        let (sender, report) = oneshot::channel();
        let token = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = move || {
            let report = runtime.block_on(run(plan, token));
            // Nobody wants to know any more.
            let _ = sender.send(report);
        };
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(run)?;
        Ok(Self { stop, report })
    }

    /// Lets what is under way finish, and reports; none when its thread is gone.
    pub async fn finish(mut self) -> Option<LoadReport> {
        self.stop.cancel();
        (&mut self.report).await.ok()
    }
}

impl Drop for LoadRun {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Clone)]
struct LoadSide {
    plan: Arc<LoadPlan>,
    tally: Arc<Mutex<LoadTally>>,
    stop: CancellationToken,
    began: Instant,
}

impl LoadSide {
    fn count(&self, count: impl FnOnce(&mut LoadTally)) {
        count(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until a request is due; false when the load ends before. Its connection is free since `free`.
    async fn is_due(&self, due: Instant, free: Instant) -> bool {
        tokio::select! {
            () = sleep_until(due) => {}
            () = self.stop.cancelled() => return false,
        }
        self.count(|tally| tally.begins(due.max(free)));
        true
    }

    /// One request on a connection, or on a new one; returns the connection when it stays.
    async fn ask(
        &self,
        due: Instant,
        open: Option<ClientConnection>,
        keep: bool,
    ) -> Option<ClientConnection> {
        let asked = timeout_at(due + PATIENCE, async {
            let mut connection = match open {
                Some(open) => open,
                None => ClientConnection::open(&self.plan.listen).await?,
            };
            let answer = connection.get(&self.plan.path, keep).await?;
            Ok::<(ClientConnection, WholeAnswer), Lost>((connection, answer))
        });
        match asked.await.unwrap_or(Err(Lost::TimedOut)) {
            Ok((connection, answer)) => {
                self.count(|tally| tally.answered(due, answer.status));
                answer.keeps.then_some(connection)
            }
            Err(lost) => {
                self.count(|tally| tally.lost(&lost));
                None
            }
        }
    }

    /// A new connection for each request.
    async fn new_connections(self) {
        let mut tasks = JoinSet::new();
        for number in 0_u32.. {
            let since = f64::from(number) / f64::from(self.plan.per_second);
            let due = self.began + Duration::from_secs_f64(since);
            if !self.is_due(due, due).await {
                break;
            }
            let side = self.clone();
            tasks.spawn(async move { drop(side.ask(due, None, false).await) });
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
    }

    /// One of the kept connections. A request that is due while the one before has no answer waits for it,
    /// and its time counts.
    async fn kept_connection(self, number: u32) {
        let period = f64::from(self.plan.kept) / f64::from(self.plan.per_second);
        let offset = f64::from(number) / f64::from(self.plan.per_second);
        let (mut open, mut free): (Option<ClientConnection>, _) = (None, self.began);
        for turn in 0_u32.. {
            let due = self.began + Duration::from_secs_f64(offset + period * f64::from(turn));
            if !self.is_due(due, free).await {
                return;
            }
            if open.as_ref().is_some_and(ClientConnection::is_closed) {
                self.count(LoadTally::closed_idle);
                open = None;
            }
            open = self.ask(due, open, true).await;
            free = Instant::now();
        }
    }
}

async fn run(plan: LoadPlan, stop: CancellationToken) -> LoadReport {
    let began = Instant::now();
    let plan = Arc::new(plan);
    let side = || LoadSide {
        plan: Arc::clone(&plan),
        tally: Arc::new(Mutex::new(LoadTally::new(began))),
        stop: stop.clone(),
        began,
    };
    let (new, kept) = (side(), side());
    let mut tasks = JoinSet::new();
    tasks.spawn(new.clone().new_connections());
    for number in 0..plan.kept {
        tasks.spawn(kept.clone().kept_connection(number));
    }
    while tasks.join_next().await.is_some() {}
    let end = Instant::now();
    let report = |side: LoadSide| {
        let mut tally = side.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.report(end)
    };
    LoadReport {
        length_ms: super::stats::tenths((end - began).as_secs_f64() * 1000.0),
        per_second: plan.per_second,
        new: report(new),
        kept: (plan.kept > 0).then(|| report(kept)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;

    const STALL: Duration = Duration::from_millis(400);

    /// A server that stands still once for [`STALL`], from its 20th request on.
    async fn stalls_once() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody is served while one has it.
        let turn = Arc::new(tokio::sync::Mutex::new(0));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let turn = Arc::clone(&turn);
                tokio::spawn(async move {
                    let mut head = [0; 1024];
                    while !matches!(stream.read(&mut head).await, Ok(0) | Err(_)) {
                        let mut served = turn.lock().await;
                        *served += 1;
                        if *served == 20 {
                            sleep(STALL).await;
                        }
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        let _ = stream.write_all(answer).await;
                    }
                });
            }
        });
        address
    }

    /// With one kept connection a load that waits would see one slow answer of forty, and a p90 without it.
    #[tokio::test]
    async fn a_stall_is_seen_by_every_request_that_was_due_in_it() {
        let plan = LoadPlan {
            listen: Listen::Tcp(stalls_once().await),
            path: "/".to_owned(),
            per_second: 100,
            kept: 1,
        };
        let load = LoadRun::start(plan).unwrap();
        sleep(Duration::from_millis(1000)).await;
        let report = load.finish().await.unwrap();
        let stall = STALL.as_secs_f64() * 1000.0;
        for part in [&report.new, report.kept.as_ref().unwrap()] {
            assert_eq!(part.failed, 0, "{report:?}");
            assert!(part.sent >= 60, "{report:?}");
            // Some 40 of 100 were due meanwhile, and waited half of it on average.
            let p90 = part.p90_ms.unwrap();
            assert!(p90 > stall / 2.0, "{report:?}");
            assert!(part.max_ms.unwrap() >= stall - 30.0, "{report:?}");
            assert!(part.longest_gap_ms >= stall - 30.0, "{report:?}");
        }
    }
}
