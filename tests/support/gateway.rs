//! One gateway process with a state directory, a port and an output of its own.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gateway::internals::HINTS;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::client::{self, Response, Target};
use super::{port, wait};

/// The first log line of a gateway that accepts connections.
pub const LISTENING: &str = "[gateway] http server listening (";
/// The log line of a generation that is ready.
pub const READY: &str = "[gateway] ready (";

/// Another test may take a port between its choice and our bind; five in a row would be a fault of
/// ours.
const BIND_TRIES: usize = 5;

/// A gateway may use its stop budget (set to 3 s below) and its force-exit margin (5 s) before we
/// lose patience.
const STOP_PATIENCE: Duration = Duration::from_secs(12);

/// A kill leaves the gateway nothing to do: only the machine takes time.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What a gateway is started with.
#[derive(Clone, Default)]
pub struct Setup {
    program: Option<PathBuf>,
    flags: Vec<OsString>,
    command: Vec<OsString>,
    config: String,
    env: Vec<(OsString, OsString)>,
    unix: bool,
    state: Option<PathBuf>,
    port: Option<u16>,
    home: Option<Arc<TempDir>>,
}

impl Setup {
    /// Nothing behind it.
    pub fn new() -> Self {
        Self::default()
    }

    /// `gateway run … -- COMMAND`
    pub fn behind<S: Into<OsString>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// The command after `--`.
    pub fn command<S: Into<OsString>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.command = command.into_iter().map(Into::into).collect();
        self
    }

    /// One plain upstream for every path.
    pub fn upstream(addr: SocketAddr) -> Self {
        Self::new().config(format!("[[route]]\nto = \"http://{addr}\"\n"))
    }

    /// Another file of the program than the one that was built.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Further flags, before `--`.
    pub fn flag(mut self, flag: impl Into<OsString>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Text added to the configuration file.
    pub fn config(mut self, text: impl AsRef<str>) -> Self {
        self.config.push_str(text.as_ref());
        self.config.push('\n');
        self
    }

    /// A variable of the gateway's environment.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// A unix listener besides the TCP one.
    pub fn unix_listener(mut self) -> Self {
        self.unix = true;
        self
    }

    /// The directory in which it starts, with files that the test put there.
    pub fn in_dir(mut self, dir: TempDir) -> Self {
        self.home = Some(Arc::new(dir));
        self
    }

    /// A state directory that the test made.
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state = Some(dir.into());
        self
    }

    /// A port that the test chose.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Starts it without waiting for anything but the spawn.
    pub fn spawn(&self) -> Gateway {
        Gateway::spawn(self)
    }

    /// Starts it and waits until its first generation is ready.
    pub fn start(&self) -> Gateway {
        for _ in 1..BIND_TRIES {
            let gateway = self.spawn();
            match gateway.wait_line_or_exit(READY) {
                Some(_) => return gateway,
                None if self.port.is_none() && gateway.stderr().contains("in use") => {}
                None => panic!(
                    "the gateway ended before it was ready:\n{}",
                    gateway.stderr()
                ),
            }
        }
        panic!("no free port after {BIND_TRIES} tries")
    }
}

/// A running gateway; ended with its sidecars when dropped.
pub struct Gateway {
    child: Child,
    status: Option<ExitStatus>,
    home: Arc<TempDir>,
    state: PathBuf,
    addr: SocketAddr,
    stderr: Arc<Lines>,
    stdout: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

/// What comes out of a pipe, line by line. A thread reads it, and so does everybody who asks for it:
/// what was written before is never missing because a thread had no turn yet.
struct Lines {
    pipe: OwnedFd,
    seen: Mutex<Seen>,
    bell: Condvar,
    /// Nobody reads.
    unread: AtomicBool,
}

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    unfinished: Vec<u8>,
    ended: bool,
}

impl Lines {
    fn follow(source: impl Into<OwnedFd>) -> (Arc<Self>, JoinHandle<()>) {
        let lines = Arc::new(Self {
            pipe: source.into(),
            seen: Mutex::default(),
            bell: Condvar::new(),
            unread: AtomicBool::new(false),
        });
        let ours = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            loop {
                let seen = ours.seen.lock().unwrap();
                let seen = ours
                    .bell
                    .wait_while(seen, |_| ours.unread.load(Ordering::Relaxed));
                if seen.unwrap().ended {
                    break;
                }
                ours.readable(PollTimeout::NONE);
                drop(ours.read());
            }
        });
        (lines, reader)
    }

    fn readable(&self, limit: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        // Interrupted: the reader comes again.
        poll(&mut fds, limit).is_ok_and(|ready| ready > 0)
    }

    /// Reads all that is in the pipe now.
    fn read(&self) -> MutexGuard<'_, Seen> {
        let mut seen = self.seen.lock().unwrap();
        let mut piece = [0; 16 * 1024];
        while !seen.ended
            && !self.unread.load(Ordering::Relaxed)
            && self.readable(PollTimeout::ZERO)
        {
            let length = nix::unistd::read(&self.pipe, &mut piece).unwrap_or(0);
            seen.ended = length == 0;
            seen.take(&piece[..length]);
            self.bell.notify_all();
        }
        seen
    }

    fn text(&self) -> String {
        self.read().lines.join("\n")
    }

    /// The first line from `skip` on that holds `needle`; none when the output ended or the
    /// deadline passed.
    fn wait(&self, needle: &str, skip: usize, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        let mut seen = self.read();
        let (mut skip, mut looked_at) = (skip, 0);
        loop {
            for line in &seen.lines[looked_at..] {
                if line.contains(needle) {
                    if skip == 0 {
                        return Some(line.clone());
                    }
                    skip -= 1;
                }
            }
            looked_at = seen.lines.len();
            let left = end.checked_duration_since(Instant::now())?;
            if seen.ended {
                return None;
            }
            seen = self.bell.wait_timeout(seen, left).unwrap().0;
        }
    }
}

impl Seen {
    fn take(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.unfinished.extend(&rest[..end]);
            self.finish();
            rest = &rest[end + 1..];
        }
        self.unfinished.extend(rest);
        if self.ended && !self.unfinished.is_empty() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let line = std::mem::take(&mut self.unfinished);
        self.lines.push(String::from_utf8_lossy(&line).into_owned());
    }
}

impl Gateway {
    fn spawn(setup: &Setup) -> Self {
        let home = setup
            .home
            .clone()
            .unwrap_or_else(|| Arc::new(tempfile::Builder::new().prefix("gw-").tempdir().unwrap()));
        let state = setup
            .state
            .clone()
            .unwrap_or_else(|| home.path().join("state"));
        let port = setup.port.unwrap_or_else(port::private);
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let config = home.path().join("gateway.toml");
        fs::write(&config, &setup.config).unwrap();
        let program = setup.program.as_deref();
        let program = program.unwrap_or(Path::new(env!("CARGO_BIN_EXE_gateway")));
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg("--config")
            .arg(&config)
            .arg("--state-dir")
            .arg(&state)
            .arg("--listen")
            .arg(addr.to_string());
        if setup.unix {
            command
                .arg("--listen")
                .arg(format!("unix:{}", home.path().join("front.sock").display()));
        }
        command.args(&setup.flags);
        if !setup.command.is_empty() {
            command.arg("--").args(&setup.command);
        }
        scrub(&mut command);
        // A test that leaves a stream open should not wait the whole 20 s for its gateway's end.
        command.env("GATEWAY_RESTART_STOP_DRAIN", "3s");
        // Nor for the old copy, where it is not about that.
        command.env("GATEWAY_RESTART_WATCH", "0s");
        // Nor end old copies early, for new ones.
        command.env("GATEWAY_RESTART_MAX_COPIES", "20");
        command.envs(setup.env.iter().cloned());
        command
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let (stderr, reads_stderr) = Lines::follow(child.stderr.take().unwrap());
        let (stdout, reads_stdout) = Lines::follow(child.stdout.take().unwrap());
        Self {
            child,
            status: None,
            home,
            state,
            addr,
            stderr,
            stdout,
            readers: vec![reads_stderr, reads_stdout],
        }
    }

    /// The address of the front door.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The front door for the clients of this harness.
    pub fn target(&self) -> Target {
        Target::Tcp(self.addr)
    }

    /// The unix listener asked for by [`Setup::unix_listener`].
    pub fn unix_target(&self) -> Target {
        Target::Unix(self.home.path().join("front.sock"))
    }

    /// The gateway's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that has the service now: another one after a hand-over.
    pub fn main_pid(&self) -> u32 {
        gateway::internals::Owner::read(&self.state).map_or(self.pid(), |owner| owner.pid)
    }

    /// Waits until none of the processes that ever were this gateway is left.
    pub fn wait_gone(&mut self, limit: Duration) {
        let gone = wait::within(limit, || {
            self.exited();
            family_of(&self.config_file()).is_empty().then_some(())
        });
        assert!(
            gone.is_some(),
            "left after {limit:?}: {:?}\n{}",
            family_of(&self.config_file()),
            self.stderr()
        );
    }

    /// A directory for the test's files, removed with the gateway.
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// The configuration file it was started with.
    pub fn config_file(&self) -> PathBuf {
        self.home.path().join("gateway.toml")
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// What it said so far on stderr.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Leaves its stderr unread from now on, or reads it again.
    pub fn leave_stderr_unread(&self, unread: bool) {
        let _seen = self.stderr.seen.lock().unwrap();
        self.stderr.unread.store(unread, Ordering::Relaxed);
        self.stderr.bell.notify_all();
    }

    /// What it said so far on stdout.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Waits for a line on stderr; panics with all that was said when none comes.
    pub fn wait_line(&self, needle: &str) -> String {
        self.wait_nth_line(needle, 0)
    }

    /// Waits for the line after `skip` others that hold `needle`.
    pub fn wait_nth_line(&self, needle: &str, skip: usize) -> String {
        self.stderr
            .wait(needle, skip, wait::DEADLINE)
            .unwrap_or_else(|| {
                panic!(
                    "no line with `{needle}` (after {skip} such) on stderr:\n{}",
                    self.stderr()
                )
            })
    }

    /// How long a generation was there beside the next one, as the log says once it is gone.
    pub fn gone_after(&self, generation: u64) -> Duration {
        let begin = format!("generation {generation} is gone after ");
        let line = self.wait_line(&begin);
        let (_, rest) = line.split_once(&begin).unwrap();
        Duration::from_millis(rest.strip_suffix(" ms").unwrap().parse().unwrap())
    }

    /// Waits for a line on stderr; none when the gateway ended without it.
    pub fn wait_line_or_exit(&self, needle: &str) -> Option<String> {
        self.stderr.wait(needle, 0, wait::DEADLINE)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
        }
    }

    /// Waits for its end; panics after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let status = wait::within(limit, || self.exited());
        status
            .unwrap_or_else(|| panic!("the gateway still runs after {limit:?}:\n{}", self.stderr()))
    }

    /// Its exit code, when it ends within `limit`.
    pub fn exit_code(&mut self, limit: Duration) -> i32 {
        let status = self.wait_exit(limit);
        // All that it said is read before anyone looks at it.
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or(0))
    }

    /// Its status when it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    /// `gatewayctl --state-dir … ARGS`, run to its end.
    pub fn ctl<S: Into<OsString>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.ctl_command(args).output().unwrap()
    }

    /// The same on a thread of its own.
    pub fn ctl_aside<S: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> JoinHandle<Output> {
        let mut command = self.ctl_command(args);
        std::thread::spawn(move || command.output().unwrap())
    }

    fn ctl_command<S: Into<OsString>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = ctl_in(&self.state);
        command.args(args.into_iter().map(Into::into));
        command
    }

    /// `gatewayctl status --json`
    pub fn status(&self) -> Value {
        let output = self.ctl(["status", "--json"]);
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("status --json: {error}: {}", said(&output)))
    }

    /// A request and a status are answered, both together within `limit`.
    pub fn answers_within(&self, limit: Duration) {
        let begun = Instant::now();
        let got = client::block_on(client::get(&self.target(), "/")).unwrap();
        assert_eq!(got.status(), 200, "{}", got.text());
        self.status();
        assert!(begun.elapsed() < limit, "{}", self.stderr());
    }

    /// Waits until `gatewayctl status --json` satisfies `good`.
    pub fn wait_status(&self, what: &str, mut good: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait::within(wait::DEADLINE, || {
            last = self.status();
            good(&last).then(|| last.clone())
        })
        .unwrap_or_else(|| {
            panic!(
                "waited in vain: {what}; last status {last:#}\n{}",
                self.stderr()
            )
        })
    }

    /// The process id of the sidecar `name` in the current generation, 0 while none runs.
    pub fn sidecar_pid(&self, name: &str) -> u32 {
        let status = self.status();
        let sidecars = status["sidecars"].as_array().cloned().unwrap_or_default();
        let found = sidecars.iter().find(|sidecar| sidecar["name"] == name);
        found
            .and_then(|sidecar| sidecar["pid"].as_u64())
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or(0)
    }

    /// What who has the gateway's token is answered.
    pub fn get_with_token(&self, path: &str) -> Response {
        let token = fs::read_to_string(self.state_dir().join("token")).unwrap();
        let text = format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            token.trim()
        );
        client::block_on(client::request(&self.target(), &text)).unwrap()
    }

    /// A value on the metrics page; `name` with its labels.
    pub fn metric(&self, name: &str) -> u64 {
        let page = self.get_with_token("/_gateway/metrics").text();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} on the metrics page:\n{page}"))
    }

    /// `gatewayctl restart`, which must succeed.
    pub fn restart(&self) -> Output {
        let output = self.ctl(["restart"]);
        assert!(
            output.status.success(),
            "gatewayctl restart: {}\ngateway:\n{}",
            said(&output),
            self.stderr()
        );
        output
    }

    /// Resident memory in KiB: now, and the most there was.
    pub fn memory_kib(&self) -> (u64, u64) {
        memory_kib(self.pid())
    }

    /// Open file descriptors.
    pub fn fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }

    /// Stops whichever process has the service, and waits until nothing of the gateway is left.
    pub fn terminate(&mut self) {
        kill(
            Pid::from_raw(i32::try_from(self.main_pid()).unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        self.wait_gone(STOP_PATIENCE);
    }

    /// Stops it in order; panics when it does not end by itself.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_exit(STOP_PATIENCE)
    }

    /// Ends it as a crash does.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_exit(KILL_PATIENCE);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let others = family_of(&self.config_file());
        if self.exited().is_some() && others.is_empty() {
            return;
        }
        let mut family = descendants(self.pid());
        for (pid, start) in others {
            family.extend(descendants(pid));
            family.push((pid, start));
        }
        self.signal(Signal::SIGTERM);
        if wait::within(STOP_PATIENCE, || self.exited()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for (pid, start) in family {
            if gateway::internals::start_time(pid) == Some(start) {
                let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
            }
        }
        if std::thread::panicking() {
            eprintln!(
                "--- what the gateway said ---\n{}\n---",
                tail(&self.stderr(), 200)
            );
        }
    }
}

/// Every process of this machine.
pub fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The processes that are or were one gateway, each with its start time: its configuration file is
/// its own, while the state directory may be shared with others that stand by.
pub fn family_of(config: &Path) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    for pid in pids() {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let mut words = line.split(|byte| *byte == 0);
        let program = words.next().unwrap_or_default();
        let runs = words.next() == Some(b"run".as_slice());
        use std::os::unix::ffi::OsStrExt;
        if runs
            && program.ends_with(b"gateway")
            && words.any(|word| word == config.as_os_str().as_bytes())
        {
            found.extend(gateway::internals::start_time(pid).map(|start| (pid, start)));
        }
    }
    found
}

/// The last `count` lines.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Exit status and both outputs, for messages.
pub fn said(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{}\nstdout: {out}\nstderr: {err}", output.status)
}

/// VmRSS and VmHWM of a process, in KiB; zeros when it is gone.
pub fn memory_kib(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    (field("VmRSS:").unwrap_or(0), field("VmHWM:").unwrap_or(0))
}

/// Every living descendant of a process with its start time.
pub fn descendants(root: u32) -> Vec<(u32, u64)> {
    let mut parents = Vec::new();
    for pid in pids() {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        if let Some(parent) = rest
            .split_whitespace()
            .nth(1)
            .and_then(|text| text.parse::<u32>().ok())
        {
            parents.push((pid, parent));
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    family
        .into_iter()
        .skip(1)
        .filter_map(|pid| Some((pid, gateway::internals::start_time(pid)?)))
        .collect()
}

/// `gatewayctl --state-dir STATE`, for further arguments.
pub fn ctl_in(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
    command.arg("--state-dir").arg(state).stdin(Stdio::null());
    scrub(&mut command);
    command
}

/// Takes away every variable by which the machine that runs the tests could speak to the gateway,
/// and the terminal that they may run from: a test that is about terminals makes one.
#[allow(unsafe_code, reason = "what runs between fork and exec")]
pub fn scrub(command: &mut Command) {
    // SAFETY: one system call. It fails only in the leader of a process group.
    unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
    for (key, _) in std::env::vars_os() {
        if key
            .to_str()
            .is_some_and(|key| key.starts_with("GATEWAY_") || HINTS.contains(&key))
        {
            command.env_remove(key);
        }
    }
}
