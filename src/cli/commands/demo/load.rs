//! The clients of the demo: some open a connection for each request, some keep theirs. None tries again:
//! what is lost is seen.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Clients that keep their connection.
const KEPT: usize = 5;

/// All clients.
pub const CLIENTS: usize = KEPT + 1;

/// A new connection this often, whatever became of those before.
const NEW_EVERY: Duration = Duration::from_millis(20);

/// Between two requests of a client that keeps its connection.
const THINKS: Duration = Duration::from_millis(80);

/// A client that has no answer for this long gives up: longer than any restart here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A head of the demo's server is shorter.
const HEAD_MAX: u64 = 8 * 1024;

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest {
    pub sent: Instant,
    pub ended: Instant,
    pub good: bool,
}

/// The clients at work.
pub struct Load {
    answers: UnboundedReceiver<ClientRequest>,
    under_way: Arc<AtomicUsize>,
    stop: CancellationToken,
    clients: TaskTracker,
}

/// What a client has.
#[derive(Clone)]
struct LoadClient {
    port: u16,
    answers: UnboundedSender<ClientRequest>,
    under_way: Arc<AtomicUsize>,
    stop: CancellationToken,
    clients: TaskTracker,
}

impl Load {
    pub fn start(port: u16) -> Self {
        let (sender, answers) = unbounded_channel();
        let client = LoadClient {
            port,
            answers: sender,
            under_way: Arc::default(),
            stop: CancellationToken::new(),
            clients: TaskTracker::new(),
        };
        for _ in 0..KEPT {
            client.clients.spawn(client.clone().keep());
        }
        client.clients.spawn(client.clone().open());
        client.clients.close();
        Self {
            answers,
            under_way: client.under_way,
            stop: client.stop,
            clients: client.clients,
        }
    }

    /// The next request that ends.
    pub async fn next(&mut self) -> Option<ClientRequest> {
        self.answers.recv().await
    }

    /// One that has ended already.
    pub fn ready(&mut self) -> Option<ClientRequest> {
        self.answers.try_recv().ok()
    }

    /// How many requests have no answer yet.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// No client begins another request.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until those under way have ended.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let clients = self.clients.clone();
        async move { clients.wait().await }
    }
}

impl LoadClient {
    /// Requests over one connection, which is opened again when the gateway says that it closes it.
    async fn keep(self) {
        let mut kept = None;
        while !self.stop.is_cancelled() {
            self.ask(&mut kept).await;
            sleep(THINKS).await;
        }
    }

    /// Requests over a connection each.
    async fn open(self) {
        let mut ticks = interval(NEW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !self.stop.is_cancelled() {
            ticks.tick().await;
            let client = self.clone();
            self.clients
                .spawn(async move { client.ask(&mut None).await });
        }
    }

    async fn ask(&self, kept: &mut Option<BufReader<TcpStream>>) {
        let sent = Instant::now();
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let answered = timeout(PATIENCE, request(self.port, kept)).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        let good = matches!(answered, Ok(Ok(true)));
        if !good {
            *kept = None;
        }
        // An error means that nobody looks any more.
        let _ = self.answers.send(ClientRequest {
            sent,
            ended: Instant::now(),
            good,
        });
    }
}

/// One request; whether it was answered as the server does.
async fn request(port: u16, kept: &mut Option<BufReader<TcpStream>>) -> io::Result<bool> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?),
    };
    let asked = b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n";
    stream.get_mut().write_all(asked).await?;
    let mut line = String::new();
    let mut head = (&mut stream).take(HEAD_MAX);
    head.read_line(&mut line).await?;
    let good = line.split(' ').nth(1) == Some("200");
    let (mut length, mut closes) = (0, false);
    loop {
        line.clear();
        if head.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let lower = line.trim_end().to_ascii_lowercase();
        match lower.split_once(": ") {
            None => break,
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            Some(("connection", value)) => closes = value == "close",
            Some(_) => {}
        }
    }
    let mut body = vec![0; usize::min(length, HEAD_MAX as usize)];
    stream.read_exact(&mut body).await?;
    *kept = Some(stream).filter(|_| !closes);
    Ok(good && body.starts_with(b"pid "))
}
