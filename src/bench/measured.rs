//! The server under measure: a gateway in a home of its own, or any other program; its output is read line
//! by line.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::home::BenchHome;
use super::log_lines::OutputTail;
use super::server::{self, ServerPace};
use super::subject::{ServerHandle, Subject};
use crate::config::Listen;
use crate::os::child::ends_with_parent;
use crate::os::process::{Ended, PidFd, descendants};

/// A longer line is cut into several: a program may write anything.
const LINE_MAX: u64 = 64 * 1024;

/// How long its orderly end may take: the 20 s that a stop gives to old work, and what its servers take.
const ENDS: Duration = Duration::from_secs(40);

/// How long its servers may take to end when it has: they are asked before it ends.
const SERVERS_END: Duration = Duration::from_secs(5);

/// A line of its output.
#[derive(Debug)]
pub struct OutputLine {
    pub at: Instant,
    pub text: String,
}

#[derive(Debug)]
pub struct MeasuredServer {
    /// None of a server that has none.
    home: Option<BenchHome>,
    port: u16,
    child: Child,
    process: Arc<PidFd>,
    began: Instant,
    lines: UnboundedReceiver<OutputLine>,
    reader: JoinHandle<()>,
    server: Option<JoinHandle<io::Result<()>>>,
    tail: OutputTail,
}

/// How it ended.
#[derive(Debug)]
pub struct MeasuredEnd {
    pub status: Option<ExitStatus>,
    /// Whether nothing of it is left.
    pub clean: bool,
    pub tail: Vec<String>,
}

impl MeasuredEnd {
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    pub fn signal(&self) -> Option<String> {
        let number = self.status.and_then(|status| status.signal())?;
        Some(Signal::try_from(number).map_or_else(|_| number.to_string(), |it| it.to_string()))
    }
}

impl MeasuredServer {
    /// # Errors
    /// When it cannot be started.
    pub fn start(subject: &Subject<'_>) -> io::Result<Self> {
        let (home, port, mut command) = match subject {
            Subject::Gateway { case, gateway, own } => {
                let home = BenchHome::make(*case, own)?;
                let command = home.command(gateway);
                (Some(home), None, command)
            }
            Subject::Target(target) => (None, Some(target.port), target.server()),
        };
        let server_port = home.as_ref().and_then(|home| home.server_port);
        let server =
            server_port.map(|port| tokio::spawn(server::serve(port, ServerPace::default())));
        let port = home
            .as_ref()
            .map(|home| home.port)
            .or(port)
            .unwrap_or_default();
        let (read, write) = io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(write.try_clone()?)
            .stderr(write);
        let began = Instant::now();
        let child = ends_with_parent(&mut command).spawn()?;
        // Both sides of the pipe that the command holds here.
        drop(command);
        let process = Arc::new(PidFd::open(child.id())?);
        let (sender, lines) = unbounded_channel();
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(read))?;
        Ok(Self {
            home,
            port,
            child,
            process,
            began,
            lines,
            reader: tokio::spawn(read_lines(output, sender)),
            server,
            tail: OutputTail::default(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn listen(&self) -> Listen {
        Listen::Tcp(([127, 0, 0, 1], self.port).into())
    }

    /// Whom a restart is about.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            pid: self.pid(),
            process: Arc::clone(&self.process),
            state: self.home.as_ref().map(BenchHome::state),
        }
    }

    /// When it was started.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The next line; waits for ever when nothing can write any more.
    pub async fn line(&mut self) -> OutputLine {
        match self.lines.recv().await {
            Some(line) => {
                self.tail.add(&line.text);
                line
            }
            None => std::future::pending().await,
        }
    }

    /// A line that is there already.
    pub fn line_now(&mut self) -> Option<OutputLine> {
        let line = self.lines.try_recv().ok()?;
        self.tail.add(&line.text);
        Some(line)
    }

    /// The end of its process.
    pub fn ended(&self) -> Ended {
        self.process.ended()
    }

    /// Ends it and everything that it started, and removes its home.
    pub async fn stop(mut self) -> MeasuredEnd {
        // Their descriptors, while their numbers are surely theirs.
        let servers = descendants(self.pid()).into_iter();
        let servers = servers.filter(|pid| *pid != self.pid());
        let servers: Vec<PidFd> = servers.filter_map(|pid| PidFd::open(pid).ok()).collect();
        // What fails here has ended.
        let _ = self.process.signal(Signal::SIGTERM);
        let mut clean = timeout(ENDS, self.process.ended().wait()).await.is_ok();
        if !clean {
            let _ = self.process.signal(Signal::SIGKILL);
        }
        if self.home.is_none() {
            // Another server may leave this to whoever ends it; a gateway never does.
            for server in &servers {
                let _ = server.signal(Signal::SIGTERM);
            }
        }
        let gone = async {
            for server in &servers {
                server.ended().wait().await;
            }
        };
        if timeout(SERVERS_END, gone).await.is_err() {
            clean = false;
            for server in &servers {
                let _ = server.signal(Signal::SIGKILL);
            }
        }
        let status = self.child.wait().ok();
        // All who could write have ended: what they wrote comes, and then the end.
        let rest = async {
            while self
                .lines
                .recv()
                .await
                .map(|line| self.tail.add(&line.text))
                .is_some()
            {}
        };
        let _ = timeout(SERVERS_END, rest).await;
        self.reader.abort();
        if let Some(server) = &self.server {
            server.abort();
        }
        clean &= self.home.is_none_or(|home| home.remove().is_ok());
        MeasuredEnd {
            status,
            clean,
            tail: self.tail.lines(),
        }
    }
}

async fn read_lines(output: pipe::Receiver, lines: UnboundedSender<OutputLine>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut output).take(LINE_MAX);
        if !matches!(limited.read_until(b'\n', &mut line).await, Ok(1..)) {
            return;
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let at = Instant::now();
        // Nobody reads any more: nobody wants to know.
        let _ = lines.send(OutputLine { at, text });
    }
}
