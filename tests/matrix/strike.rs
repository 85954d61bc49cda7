//! How each fault is done, and undone.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt::Linger};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::faults::Fault;
use crate::scene::{Asker, Scene};
use crate::support::gateway::Gateway;
use crate::support::handover::{family, signal};

/// How long a stopped process stays stopped: far less than what is taken for hanging.
pub const FROZEN: Duration = Duration::from_millis(300);

/// A limit of descriptors, and more clients than it allows.
const DESCRIPTORS: &str = "256";
const CLIENTS: usize = 300;

/// More connections than the control socket has places for.
const CONTROL_CLIENTS: usize = 130;

/// Clients that reset their connections.
const RESETS: usize = 20;

/// What the state directory has besides lock, sockets and bundles.
const STATE_FILES: [&str; 5] = [
    "owner.json",
    "restart-intent.json",
    "startup-throttle.json",
    "history.jsonl",
    "good.toml",
];

/// What the names of replaced state files end with.
pub const REPLACED: &str = "replaced";

type Undo<'a> = Box<dyn FnOnce() + 'a>;

/// What is left to do about a fault.
#[derive(Default)]
pub struct Aftermath<'a> {
    /// After [`FROZEN`].
    pub soon: Option<Undo<'a>>,
    /// When the restart has ended.
    pub late: Option<Undo<'a>>,
    /// Another command on its way.
    pub asked: Option<Asker>,
    /// A signal asked for something more.
    pub signalled: bool,
}

/// Does it.
pub fn strike<'a>(fault: Fault, scene: &Scene<'a>) -> Aftermath<'a> {
    let (gateway, old) = (scene.gateway, scene.old);
    let mut after = Aftermath::default();
    match fault {
        Fault::KillOld => signal(old, Signal::SIGKILL),
        Fault::KillNew => signal(scene.new_process(), Signal::SIGKILL),
        Fault::FreezeOld => after.soon = Some(freeze(old)),
        Fault::FreezeNew => after.soon = Some(freeze(scene.new_process())),
        Fault::TermOld => signal(old, Signal::SIGTERM),
        Fault::TermNew => signal(scene.new_process(), Signal::SIGTERM),
        Fault::IntOld => signal(old, Signal::SIGINT),
        Fault::HupOld | Fault::Usr1Old | Fault::Usr2Old => {
            signal(old, what(fault));
            after.signalled = true;
        }
        Fault::AnotherRestart => after.asked = Some(Asker::start(gateway, &["restart"])),
        Fault::Stop => after.asked = Some(Asker::start(gateway, &["stop"])),
        Fault::KillAsker => signal(scene.asker.pid, Signal::SIGKILL),
        Fault::GoodReload => {
            let good = configuration(gateway);
            let changed = format!("{good}\n[limits]\nconnections = 900\n");
            fs::write(gateway.config_file(), changed).unwrap();
            after.asked = Some(Asker::start(gateway, &["reload"]));
            after.late = Some(restore(gateway, good));
        }
        Fault::BadReload => {
            let good = configuration(gateway);
            fs::write(gateway.config_file(), "[restart\nmode = ").unwrap();
            signal(old, Signal::SIGHUP);
            after.signalled = true;
            after.late = Some(restore(gateway, good));
        }
        Fault::NoConfiguration => {
            let good = configuration(gateway);
            fs::remove_file(gateway.config_file()).unwrap();
            after.late = Some(restore(gateway, good));
        }
        Fault::KillOldServer => signal(scene.old_server, Signal::SIGKILL),
        Fault::KillNewServer => signal(scene.new_server(), Signal::SIGKILL),
        Fault::FreezeOldServer => after.soon = Some(freeze(scene.old_server)),
        Fault::FreezeNewServer => after.soon = Some(freeze(scene.new_server())),
        Fault::ClientsReset => (0..RESETS).for_each(|_| reset(gateway)),
        Fault::ClientsTakeDescriptors => after.late = Some(take_descriptors(gateway)),
        Fault::StderrFull => {
            gateway.leave_stderr_unread(true);
            fill_stderr(old);
            after.late = Some(Box::new(move || gateway.leave_stderr_unread(false)));
        }
        Fault::DiskFull => {
            let filler = gateway.state_dir().join("filler");
            let mut file = File::create(&filler).unwrap();
            while file.write(&[0; 4096]).is_ok() {}
            after.late = Some(Box::new(move || fs::remove_file(filler).unwrap()));
        }
        Fault::StateReplaced => replace_state(gateway),
        Fault::ControlCrowded => {
            let path = gateway.state_dir().join("run/control.sock");
            let connect = |_| UnixStream::connect(&path).ok();
            let idle: Vec<_> = (0..CONTROL_CLIENTS).filter_map(connect).collect();
            after.late = Some(Box::new(|| drop(idle)));
        }
    }
    after
}

fn what(fault: Fault) -> Signal {
    match fault {
        Fault::HupOld => Signal::SIGHUP,
        Fault::Usr1Old => Signal::SIGUSR1,
        _ => Signal::SIGUSR2,
    }
}

fn freeze<'a>(pid: u32) -> Undo<'a> {
    signal(pid, Signal::SIGSTOP);
    Box::new(move || signal(pid, Signal::SIGCONT))
}

fn configuration(gateway: &Gateway) -> String {
    fs::read_to_string(gateway.config_file()).unwrap()
}

fn restore(gateway: &Gateway, good: String) -> Undo<'_> {
    Box::new(move || fs::write(gateway.config_file(), good).unwrap())
}

/// A client that goes away in the middle of its request.
fn reset(gateway: &Gateway) {
    let mut client = TcpStream::connect(gateway.addr()).unwrap();
    let _ = client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nx");
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&client, Linger, &at_once).unwrap();
}

/// Clients with requests that do not end, until the descriptors are used up.
fn take_descriptors(gateway: &Gateway) -> Undo<'_> {
    let limit = |pid: u32, to: &str| {
        let mut prlimit = Command::new("prlimit");
        let _ = prlimit
            .args(["--pid", &pid.to_string(), &format!("--nofile={to}:")])
            .output();
    };
    let before = fs::read_to_string(format!("/proc/{}/limits", gateway.main_pid())).unwrap();
    let line = before
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let before = line.and_then(|line| line.split_whitespace().nth(3));
    let before = before.unwrap().to_owned();
    for pid in family(gateway) {
        limit(pid, DESCRIPTORS);
    }
    let hold = |_| {
        let mut client = TcpStream::connect(gateway.addr()).unwrap();
        let _ = client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nx");
        client
    };
    let held: Vec<_> = (0..CLIENTS).map(hold).collect();
    Box::new(move || {
        drop(held);
        for pid in family(gateway) {
            limit(pid, &before);
        }
    })
}

/// Writes until nothing more fits into the pipe that a process has as standard error.
fn fill_stderr(pid: u32) {
    let mut pipe = OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(format!("/proc/{pid}/fd/2"))
        .unwrap();
    while pipe.write(b"filled by the test\n").is_ok() {}
}

/// Puts a pipe in the place of each state file, which is kept beside it.
fn replace_state(gateway: &Gateway) {
    for name in STATE_FILES {
        let path = gateway.state_dir().join(name);
        let _ = fs::rename(&path, path.with_extension(REPLACED));
        mkfifo(&path, Mode::S_IRWXU).unwrap();
    }
}
