//! The worker threads. Each has a runtime of its own and accepts on the same listeners: measured,
//! this carries a tenth more than one work-stealing runtime.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection;
use super::drain::{Accepting, WorkerState, restricted_to};
use super::forwarded::Peer;
use super::listener::ListenSocket;
use super::moved_client::MovedClient;
use super::worker_context::WorkerContext;
use super::{Front, accept, pool, tasks};
use crate::os::mutex::lock;

/// How many sockets may wait for a thread: this process's own, of which there are few, and those
/// that a predecessor hands over.
const QUEUE: usize = 64;

/// The threads that accept and serve one set of listeners.
#[derive(Debug)]
pub struct Workers {
    threads: Mutex<Vec<JoinHandle<()>>>,
    queues: Vec<mpsc::Sender<QueuedSocket>>,
    context: Arc<WorkerContext>,
    sockets: watch::Sender<Arc<Vec<ListenSocket>>>,
    /// How many sockets went to one thread: each goes to the next one.
    turns: AtomicUsize,
}

/// A connected socket that a thread serves without having accepted it.
#[derive(Debug)]
enum QueuedSocket {
    /// This process's own.
    Own(Peer, OwnedFd),
    /// A client's, between two requests, from a predecessor.
    Client(MovedClient),
}

impl Workers {
    /// Starts `count` threads that serve clients of `sockets`.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(front: &Arc<Front>, sockets: Vec<ListenSocket>, count: usize) -> io::Result<Self> {
        let context = Arc::new(WorkerContext::new(front));
        let sockets = watch::Sender::new(Arc::new(sockets));
        let mut threads = Vec::new();
        let mut queues = Vec::new();
        for index in 0..count.max(1) {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let context = Arc::clone(&context);
            let sockets = sockets.subscribe();
            let thread = std::thread::Builder::new()
                .name(format!("front-{index}"))
                .spawn(move || {
                    pool::set_worker(index);
                    runtime.block_on(run(context, sockets, receiver));
                    // Tasks that still run here are cut.
                    runtime.shutdown_background();
                })?;
            threads.push(thread);
            queues.push(sender);
        }
        Ok(Self {
            threads: Mutex::new(threads),
            queues,
            context,
            sockets,
            turns: AtomicUsize::new(0),
        })
    }

    /// How many threads serve.
    pub fn count(&self) -> usize {
        self.queues.len()
    }

    /// From here on, clients of these sockets are accepted. A socket that is no longer among them
    /// is closed after the clients in its listen queue are accepted.
    pub fn listen(&self, sockets: Vec<ListenSocket>) {
        self.sockets.send_replace(Arc::new(sockets));
    }

    /// From here on, this many client connections are admitted; see
    /// [`ConnectionLimit::set`](super::admission::ConnectionLimit::set).
    pub fn limit_connections(&self, connections: usize) {
        self.context.limit.set(connections);
    }

    /// The watchdog's probe connections: puts one end of a socket pair into each thread's queue, as
    /// if a client had connected, and returns the other ends. A thread that does not serve its end
    /// is identified by its index.
    ///
    /// # Errors
    /// The index of a thread whose queue is full or gone, or why no pair could be made.
    pub fn probe(&self) -> Result<Vec<StdUnixStream>, String> {
        let threads = 0..self.queues.len();
        threads.map(|at| self.pair(at, Peer::Watchdog)).collect()
    }

    /// A connection to one of the threads by which this process asks what clients would get.
    ///
    /// # Errors
    /// The same.
    pub fn passage(&self) -> Result<StdUnixStream, String> {
        self.pair(self.next_thread(), Peer::Passage)
    }

    /// Puts one end of a pair into the queue of this thread; the other end comes back.
    fn pair(&self, thread: usize, peer: Peer) -> Result<StdUnixStream, String> {
        let text = |error: io::Error| error.to_string();
        let (ours, theirs) = StdUnixStream::pair().map_err(text)?;
        ours.set_nonblocking(true).map_err(text)?;
        theirs.set_nonblocking(true).map_err(text)?;
        self.queues[thread]
            .try_send(QueuedSocket::Own(peer, theirs.into()))
            .map_err(|_| format!("thread {thread} takes no connections"))?;
        Ok(ours)
    }

    fn next_thread(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed) % self.queues.len()
    }

    /// Serves a client that a predecessor hands over. Waits while the queue of its thread is full.
    pub async fn adopt(&self, client: MovedClient) {
        let next = self.next_thread();
        // A thread is gone only when the process ends.
        let _ = self.queues[next].send(QueuedSocket::Client(client)).await;
    }

    /// Accepts nobody any more. The clients that wait are left to another process that holds the
    /// same listeners.
    pub fn stop_accepting(&self) {
        self.transition(|state| state.restrict(Accepting::Stopped));
    }

    /// Accepts the clients that wait already, then no more: nobody holds the listeners after this.
    pub fn empty_queues(&self) {
        let sockets = Arc::clone(&self.sockets.borrow());
        sockets.iter().for_each(ListenSocket::refuse);
        self.transition(|state| state.restrict(Accepting::QueueOnly));
    }

    /// Asks clients to connect anew, and closes connections that stay silent for long.
    pub fn announce_close(&self) {
        self.transition(|state| state.drain(Instant::now()));
    }

    /// The same. Returns when none of the connections that are open now is left; clients that come
    /// later are served meanwhile.
    pub async fn drain(&self) {
        let connections = self.context.tasks.open_now();
        self.announce_close();
        tasks::all_ended(&connections).await;
    }

    /// Moves every client connection to `destination` as soon as it is between two requests; the
    /// client does not notice. Returns when none is left here.
    pub async fn migrate_to(&self, destination: mpsc::UnboundedSender<MovedClient>) {
        self.transition(|state| state.migrate_to(destination));
        self.all_ended().await;
    }

    /// Moves no connection to the destination any more.
    pub fn end_migration(&self) {
        self.transition(WorkerState::end_migration);
    }

    /// Closes idle client connections and the others after their response. Returns when none is
    /// left; while clients are still accepted, when none of those that are open now is left.
    pub async fn close_connections(&self) {
        self.transition(WorkerState::close_connections);
        self.all_ended().await;
    }

    /// Ends the threads; what is not finished is cut.
    pub fn abort(&self) {
        self.transition(|state| state.restrict(Accepting::Aborted));
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }

    fn transition(&self, change: impl FnOnce(&mut WorkerState) -> bool) {
        self.context.state.send_if_modified(change);
    }

    async fn all_ended(&self) {
        let accepting = self.context.state.borrow().accepting;
        if accepting > Accepting::Open {
            // Then none of them accepts another client.
            tasks::ended(&self.context.tasks.accept_loops).await;
        }
        tasks::all_ended(&self.context.tasks.open_now()).await;
    }
}

/// One thread: accepts and serves until [`Accepting::Aborted`].
async fn run(
    context: Arc<WorkerContext>,
    mut sockets: watch::Receiver<Arc<Vec<ListenSocket>>>,
    mut queue: mpsc::Receiver<QueuedSocket>,
) {
    let mut state = context.state.subscribe();
    let serving = async {
        let mut loops: JoinSet<()> = JoinSet::new();
        accept::start(&context, &mut sockets, &mut loops);
        loop {
            tokio::select! {
                Some(socket) = queue.recv() => match socket {
                    QueuedSocket::Own(peer, end) => connection::spawn_own(&context, peer, end),
                    QueuedSocket::Client(client) => connection::spawn_adopted(&context, client),
                },
                Ok(()) = sockets.changed() => accept::start(&context, &mut sockets, &mut loops),
                Some(_) = loops.join_next() => {}
                else => break,
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serving => {}
        () = restricted_to(&mut state, Accepting::Aborted) => {}
    }
}
