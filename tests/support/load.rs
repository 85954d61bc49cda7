//! A load that never waits for the server: a stall is counted in full, and every loss by its kind.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::client::{Conn, Fault, Framing, Target, within};
use super::report::{Part, Report};
use super::ws::{Frame, WebSocket};

/// Between two requests on a kept connection that is rarely silent, unless the load says otherwise;
/// also before a second try.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// The silence of a kept connection between requests: from the first to the second, spread over the
/// connections.
const IDLE_PAUSE: (u64, u64) = (1000, 3000);
/// Between two echoes on a WebSocket.
const ECHO_PAUSE: Duration = Duration::from_millis(200);
/// Every second WebSocket is closed in order and opened again after this, so that every generation
/// carries some.
const WEBSOCKET_LIFE: Duration = Duration::from_secs(3);
/// The slices in which a slow download is read.
const SLICES: u64 = 40;

/// A download of the bytes of [`super::servers::pattern`].
#[derive(Clone, Debug)]
pub struct Download {
    /// Its path.
    pub path: String,
    /// Its length in bytes.
    pub length: u64,
    /// How long the client takes to read it.
    pub takes: Duration,
}

/// What the load does.
#[derive(Clone, Debug)]
pub struct Load {
    /// The front door.
    pub target: Target,
    /// What new and kept connections ask for.
    pub path: String,
    /// New connections a second, one request each.
    pub new_per_second: f64,
    /// Kept connections; every second one is silent for seconds between its requests.
    pub kept: usize,
    /// A kept connection may end after an answer that says so, or after 14 s of silence: nobody
    /// takes it over.
    pub ends_announced: bool,
    /// Between two requests of the others.
    pub busy_pause: Duration,
    /// Slow downloads at any time.
    pub downloads: usize,
    /// What they download.
    pub download: Option<Download>,
    /// WebSockets; every second one stays open throughout.
    pub websockets: usize,
    /// Their path.
    pub websocket_path: String,
    /// How long one request may take.
    pub patience: Duration,
}

impl Load {
    /// Nothing but a target.
    pub fn on(target: impl Into<Target>) -> Self {
        Self {
            target: target.into(),
            path: "/".into(),
            new_per_second: 0.0,
            kept: 0,
            ends_announced: false,
            busy_pause: BUSY_PAUSE,
            downloads: 0,
            download: None,
            websockets: 0,
            websocket_path: "/ws".into(),
            patience: Duration::from_secs(20),
        }
    }

    /// Runs on a thread of its own until [`Running::stop`].
    pub fn start(self) -> Running {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let report = Arc::new(Mutex::new(Report::default()));
        let shared = Arc::clone(&report);
        let thread = std::thread::spawn(move || self.run_here(token, shared));
        Running {
            stop,
            report,
            thread: Some(thread),
        }
    }

    /// Runs on this thread, in whatever network namespace it is, until `stop`; what was begun is
    /// finished.
    pub fn run_here(self, stop: CancellationToken, report: Arc<Mutex<Report>>) {
        super::client::block_on(self.run(stop, report));
    }

    async fn run(self, stop: CancellationToken, report: Arc<Mutex<Report>>) {
        *report.lock().unwrap() = Report::default();
        let load = Arc::new(self);
        let mut tasks = JoinSet::new();
        tasks.spawn(arrivals(
            Arc::clone(&load),
            stop.clone(),
            Arc::clone(&report),
        ));
        for number in 0..load.kept {
            tasks.spawn(kept(
                Arc::clone(&load),
                number,
                stop.clone(),
                Arc::clone(&report),
            ));
        }
        for _ in 0..load.downloads {
            tasks.spawn(downloads(
                Arc::clone(&load),
                stop.clone(),
                Arc::clone(&report),
            ));
        }
        for number in 0..load.websockets {
            tasks.spawn(websockets(
                Arc::clone(&load),
                number,
                stop.clone(),
                Arc::clone(&report),
            ));
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        report.lock().unwrap().finish();
    }
}

/// A load under way.
pub struct Running {
    stop: CancellationToken,
    report: Arc<Mutex<Report>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Lets everything begun finish, and reports.
    pub fn stop(mut self) -> Report {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
        self.report.lock().unwrap().clone()
    }

    /// What was seen so far.
    pub fn so_far(&self) -> Report {
        self.report.lock().unwrap().clone()
    }

    /// Waits until a part saw `more` further good observations: the load flows.
    pub fn flows(&self, part: Part, more: u64) {
        let before = self.so_far().good_of(part);
        super::wait::within(super::wait::DEADLINE, || {
            (self.so_far().good_of(part) >= before + more).then_some(())
        })
        .unwrap_or_else(|| panic!("{part:?} does not flow: {}", self.so_far()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Shared = Arc<Mutex<Report>>;

async fn arrivals(load: Arc<Load>, stop: CancellationToken, report: Shared) {
    if load.new_per_second <= 0.0 {
        return;
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0_u32.. {
        let due = began + Duration::from_secs_f64(f64::from(number) / load.new_per_second);
        tokio::select! {
            () = sleep_until(due) => {}
            () = stop.cancelled() => break,
        }
        let (load, report) = (Arc::clone(&load), Arc::clone(&report));
        report.lock().unwrap().begins(due.into_std());
        tasks.spawn(async move {
            let answer = within(load.patience, async {
                let mut conn = Conn::open(&load.target).await?;
                let answer = conn.exchange(request(&load.path, false)).await?;
                Ok((conn, answer))
            });
            match answer.await {
                Ok((_, answer)) => judge(&report, Part::New, due, &answer),
                Err(fault) => report.lock().unwrap().fault(Part::New, &fault, ""),
            }
        });
        while tasks.try_join_next().is_some() {}
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

fn judge(report: &Shared, part: Part, due: Instant, answer: &super::client::Response) {
    let mut report = report.lock().unwrap();
    if answer.status() == 200 {
        report.answered(part, due.into_std());
    } else {
        let body: String = answer.text().chars().take(200).collect();
        report.lost(part, &format!("status {}", answer.status()), &body);
    }
}

fn request(path: &str, keep: bool) -> String {
    let connection = if keep { "keep-alive" } else { "close" };
    format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n")
}

async fn kept(load: Arc<Load>, number: usize, stop: CancellationToken, report: Shared) {
    let part = if number.is_multiple_of(2) {
        Part::Busy
    } else {
        Part::Idle
    };
    let pause = match part {
        Part::Busy => load.busy_pause,
        _ => Duration::from_millis(
            IDLE_PAUSE.0 + (number as u64 * 379) % (IDLE_PAUSE.1 - IDLE_PAUSE.0),
        ),
    };
    // Spread over the first pause, so that the requests do not come in waves.
    let mut due = Instant::now() + pause.mul_f64((number % 10) as f64 / 10.0);
    let mut conn = None;
    while !stop.is_cancelled() {
        let mut open = match conn.take() {
            Some(open) => open,
            None => match within(load.patience, Conn::open(&load.target)).await {
                Ok(open) => open,
                Err(fault) => {
                    report.lock().unwrap().fault(part, &fault, "connecting");
                    sleep(BUSY_PAUSE).await;
                    continue;
                }
            },
        };
        tokio::select! {
            () = sleep_until(due) => {}
            () = stop.cancelled() => return,
            end = open.ended() => {
                report.lock().unwrap().lost(part, "closed while idle", &end.to_string());
                continue;
            }
        }
        report.lock().unwrap().begins(due.into_std());
        match within(load.patience, open.exchange(request(&load.path, true))).await {
            Ok(answer) => {
                judge(&report, part, due, &answer);
                if answer.head.keeps() {
                    conn = Some(open);
                } else if !load.ends_announced {
                    report.lock().unwrap().lost(
                        part,
                        "closed after an answer",
                        &format!("{:?}", answer.head),
                    );
                }
            }
            Err(fault) => report
                .lock()
                .unwrap()
                .fault(part, &fault, "on a kept connection"),
        }
        due = (due + pause).max(Instant::now());
    }
}

async fn downloads(load: Arc<Load>, stop: CancellationToken, report: Shared) {
    let Some(download) = &load.download else {
        return;
    };
    while !stop.is_cancelled() {
        match within(
            download.takes + load.patience,
            slow_download(&load.target, download),
        )
        .await
        {
            Ok(None) => report.lock().unwrap().whole(Part::Download),
            Ok(Some(wrong)) => report.lock().unwrap().lost(Part::Download, "wrong", &wrong),
            Err(fault) => {
                report.lock().unwrap().fault(Part::Download, &fault, "");
                sleep(BUSY_PAUSE).await;
            }
        }
    }
}

/// Downloads at a steady pace; says what is wrong with what came.
pub async fn slow_download(target: &Target, download: &Download) -> Result<Option<String>, Fault> {
    slow_download_telling(target, download, || ()).await
}

/// The same; `begun` is called when the answer has begun.
pub async fn slow_download_telling(
    target: &Target,
    download: &Download,
    begun: impl FnOnce(),
) -> Result<Option<String>, Fault> {
    let mut conn = Conn::open_narrow(target).await?;
    conn.send(request(&download.path, false)).await?;
    let head = conn.head().await?;
    if head.status() != 200 {
        return Ok(Some(head.first));
    }
    let length = download.length;
    if head.framing(false) != Framing::Length(length) {
        return Ok(Some(format!("announced as {:?}", head.framing(false))));
    }
    begun();
    let slice = usize::try_from(length / SLICES + 1).unwrap();
    let pause = download.takes.div_f64(SLICES as f64);
    let mut read = 0_usize;
    let mut due = Instant::now();
    let mut in_slice = 0;
    while (read as u64) < length {
        let piece = conn.some_at_most(slice - in_slice).await?;
        if piece.is_empty() {
            return Err(Fault::Truncated);
        }
        if !super::servers::is_pattern(read, &piece) {
            return Ok(Some(format!("other bytes after {read}")));
        }
        read += piece.len();
        in_slice += piece.len();
        if in_slice >= slice {
            in_slice = 0;
            due += pause;
            sleep_until(due).await;
        }
    }
    match conn.ended().await {
        Fault::Eof => Ok(None),
        other => Ok(Some(format!("{other} after the last byte"))),
    }
}

async fn websockets(load: Arc<Load>, number: usize, stop: CancellationToken, report: Shared) {
    let stays = number.is_multiple_of(2);
    let lost =
        |kind: &str, detail: &str| report.lock().unwrap().lost(Part::WebSocket, kind, detail);
    while !stop.is_cancelled() {
        let opened = tokio::time::timeout(
            load.patience,
            WebSocket::open(&load.target, &load.websocket_path),
        )
        .await;
        let mut socket = match opened {
            Ok(Ok(socket)) => socket,
            Ok(Err((fault, _))) => {
                lost("not opened", &fault.to_string());
                sleep(BUSY_PAUSE).await;
                continue;
            }
            Err(_) => {
                lost("timeout", "opening");
                continue;
            }
        };
        let end = Instant::now() + WEBSOCKET_LIFE;
        for count in 0_u32.. {
            let text = format!("{number}.{count}");
            if let Err(fault) = within(load.patience, socket.echo(&text)).await {
                lost("cut", &format!("{fault} awaiting echo {text}"));
                break;
            }
            report.lock().unwrap().whole(Part::WebSocket);
            tokio::select! {
                () = sleep(ECHO_PAUSE) => {}
                () = stop.cancelled() => {}
                frame = socket.next() => {
                    lost("cut", &format!("{frame:?} between echoes"));
                    break;
                }
            }
            if stop.is_cancelled() || (!stays && Instant::now() >= end) {
                if let Err(fault) = within(load.patience, leave(&mut socket)).await {
                    lost("cut", &format!("{fault} while closing"));
                }
                break;
            }
        }
    }
}

/// Closes in order: our Close, theirs, the end.
async fn leave(socket: &mut WebSocket) -> Result<(), Fault> {
    socket.close(1000).await?;
    match socket.next().await? {
        Frame::Close(1000, _) => Ok(()),
        other => Err(Fault::Garbage(format!("{other:?} in answer to a close"))),
    }
}
