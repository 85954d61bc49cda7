//! What a member of a tree does.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use serde::{Deserialize, Serialize};

use super::tree::{Kind, Member, Mood, Tree};
use crate::support::gateway::scrub;
use crate::support::{part, wait};

/// Where the orders of a member stand.
pub const ORDERS: &str = "TREES_ORDERS";
const NUMBER: &str = "TREES_NUMBER";

/// A member ends by itself after this long, in seconds, should nobody else be left to end it.
const LIFE: u32 = 240;

pub const NOBODY: u32 = 65_534;

/// What all members of a tree are told.
#[derive(Serialize, Deserialize)]
pub struct Orders {
    /// Where each reports.
    pub dir: PathBuf,
    pub port: u16,
    pub members: Vec<Member>,
    pub shared: Option<std::net::IpAddr>,
    pub caller: usize,
    pub leaks: bool,
    pub gateways: [PathBuf; 2],
}

/// What a member says when it is there.
#[derive(Serialize, Deserialize)]
pub struct There {
    pub pid: u32,
    pub start_time: u64,
}

/// What the caller says when gatewayctl has ended.
#[derive(Serialize, Deserialize)]
pub struct Said {
    pub ctl: u32,
    pub exit: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Whole or absent.
pub fn put(path: &Path, what: &impl Serialize) {
    let part = path.with_extension("part");
    fs::write(&part, serde_json::to_vec(what).unwrap()).unwrap();
    fs::rename(part, path).unwrap();
}

pub fn take<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

impl Orders {
    pub fn there(&self, number: usize) -> PathBuf {
        self.dir.join(format!("there.{number}.json"))
    }

    /// The file that says that a port was taken by somebody else.
    pub fn taken(&self) -> PathBuf {
        self.dir.join("taken")
    }

    /// The arguments of gatewayctl; the caller waits for them.
    pub fn go(&self) -> PathBuf {
        self.dir.join("go.json")
    }

    pub fn said(&self) -> PathBuf {
        self.dir.join("said.json")
    }

    /// The command that starts a member.
    pub fn command(&self, number: usize, shared: Option<&OwnedFd>) -> Command {
        let member = &self.members[number];
        let program = &self.gateways[usize::from(member.beside)];
        let mut command = if member.reparented {
            Command::new("setsid")
        } else {
            Command::new(program)
        };
        if member.reparented {
            command.arg("--fork").arg(program);
        }
        if member.kind == Kind::Check {
            command.arg("check");
        }
        command.args(part::arguments(super::MODULE, "member"));
        scrub(&mut command);
        command
            .env(ORDERS, self.dir.join("orders.json"))
            .env(NUMBER, number.to_string());
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.dir.join("log"))
            .unwrap();
        command.stdin(shared.map_or_else(Stdio::null, |fd| fd.try_clone().unwrap().into()));
        command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .current_dir("/");
        if member.nobody
            && member
                .starter
                .is_none_or(|starter| !self.members[starter].nobody)
        {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Starts a member; one that is to lose its parent is started by somebody who ends at once.
    pub fn start(&self, number: usize, shared: Option<&OwnedFd>) -> std::process::Child {
        let mut child = self.command(number, shared).spawn().unwrap();
        if self.members[number].reparented {
            child.wait().unwrap();
        }
        child
    }
}

/// The life of a member.
pub fn live() {
    nix::unistd::alarm::set(LIFE);
    let _ = nix::unistd::setsid();
    let orders: Orders = take(Path::new(&std::env::var_os(ORDERS).unwrap())).unwrap();
    let number: usize = std::env::var(NUMBER).unwrap().parse().unwrap();
    let member = &orders.members[number];
    if member.stubborn {
        block();
    }
    let shared = shared(&orders, number);
    let started: Vec<_> = (0..orders.members.len())
        .filter(|other| orders.members[*other].starter == Some(number))
        .map(|other| orders.start(other, shared.as_ref()))
        .collect();
    let shared = if member.shares {
        shared
    } else {
        drop(shared);
        nix::unistd::dup2_stdin(File::open("/dev/null").unwrap()).unwrap();
        None
    };
    let own = member.own.map(|ip| listen(&orders, ip));
    if member.mood == Mood::Answers && member.kind != Kind::Foreign {
        for listener in own
            .iter()
            .map(|own| own.as_fd())
            .chain(shared.iter().map(|fd| fd.as_fd()))
        {
            let listener = TcpListener::from(listener.try_clone_to_owned().unwrap());
            std::thread::spawn(move || answer(&listener));
        }
    }
    if member.control && member.kind != Kind::Foreign {
        let control = gateway::internals::bind_control_socket(
            &orders.dir.join(format!("run.{number}/control.sock")),
        )
        .unwrap();
        control.set_nonblocking(false).unwrap();
        let answers = member.mood == Mood::Answers;
        std::thread::spawn(move || tell(&control, answers));
    }
    let pid = std::process::id();
    put(
        &orders.there(number),
        &There {
            pid,
            start_time: gateway::internals::start_time(pid).unwrap(),
        },
    );
    if member.kind == Kind::Foreign {
        if let Some(own) = &own {
            fcntl(own, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        }
        // As it is: exec of the standard library would unblock the signals.
        let words = ["sleep", "1000"].map(|word| CString::new(word).unwrap());
        let Err(error) = nix::unistd::execvp(&words[0], &words);
        panic!("sleep: {error}");
    }
    if member.mood == Mood::Stopped {
        nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
    }
    if number == orders.caller {
        call(&orders, shared.filter(|_| orders.leaks));
    }
    let _held = (own, started);
    loop {
        std::thread::park();
    }
}

/// Has every thread of this process block the signals that could end it. A mask passes from one
/// program to the next, and from a thread to those that it starts, but not to the thread that
/// started this one: so it begins once more, blocked.
fn block() {
    let all = [
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ];
    let mut before = SigSet::empty();
    sigprocmask(
        SigmaskHow::SIG_BLOCK,
        Some(&all.into_iter().collect::<SigSet>()),
        Some(&mut before),
    )
    .unwrap();
    if !before.contains(Signal::SIGTERM) {
        let words: Vec<CString> = std::env::args()
            .map(|word| CString::new(word).unwrap())
            .collect();
        let Err(error) = nix::unistd::execv(&words[0], &words);
        panic!("once more: {error}");
    }
}

/// The shared listener, which comes as the standard input; the first member makes it.
fn shared(orders: &Orders, number: usize) -> Option<OwnedFd> {
    let ip = orders.shared?;
    if number == 0 {
        nix::unistd::dup2_stdin(OwnedFd::from(listen(orders, ip))).unwrap();
    }
    Some(std::io::stdin().as_fd().try_clone_to_owned().unwrap())
}

fn listen(orders: &Orders, ip: std::net::IpAddr) -> TcpListener {
    TcpListener::bind(Tree::at(ip, orders.port)).unwrap_or_else(|error| {
        fs::write(orders.taken(), error.to_string()).unwrap();
        panic!("{ip}: {error}");
    })
}

fn answer(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut begin = [0; 4];
        let _ = stream.read_exact(&mut begin).and_then(|()| {
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        });
    }
}

/// Answers whoever asks at the control socket, or lets them wait.
fn tell(control: &UnixListener, answers: bool) {
    let mut waiting = Vec::new();
    for stream in control.incoming() {
        let mut stream = stream.unwrap();
        let mut line = String::new();
        let asked = BufReader::new(&stream)
            .read_line(&mut line)
            .ok()
            .and_then(|_| serde_json::from_str::<serde_json::Value>(&line).ok());
        if let Some(asked) = asked.filter(|_| answers) {
            let answer = serde_json::json!({"type": "res", "id": asked["id"], "ok": true, "payload": {"pid": std::process::id()}});
            let _ = writeln!(stream, "{answer}");
        }
        waiting.push(stream);
    }
}

/// Runs gatewayctl as soon as it is told how.
fn call(orders: &Orders, shared: Option<OwnedFd>) {
    let words: Vec<String> = wait::within(std::time::Duration::from_secs(LIFE.into()), || {
        take(&orders.go())
    })
    .unwrap();
    let mut command = Command::new(&words[0]);
    scrub(command.args(&words[1..]).env_remove("HOME"));
    command
        .stdin(shared.map_or_else(Stdio::null, Into::into))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // What the command was made of has a copy of the listener.
    drop(command);
    let ctl = child.id();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    put(
        &orders.said(),
        &Said {
            ctl,
            exit: output.status.code(),
            stdout,
            stderr,
        },
    );
}
