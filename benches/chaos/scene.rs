//! A gateway in a systemd box, arranged so that every fault can be done to it.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Output};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use super::schedule::{Act, Lasting, Sudden, Victim};
use crate::support::site::{FRONT, NODE_APP, Site, all_of};
use crate::support::systemd_box::SystemdBox;

/// Added to the configuration. Drains are short, but long enough for what a server has to do that
/// stands still meanwhile. Starts after a kill are not slowed down: kills are the rule here.
const CONFIGURATION: &str = "
[restart]
drain = \"12s\"
tunnel_drain = \"1s\"
[recovery]
throttle = { window = \"0s\" }
";

/// What a user's editor may leave.
const BAD_CONFIGURATION: &str = "[restart\nmode = ";

/// So few that clients can use them up, but not those who wait while the service manager lets the next
/// start wait for up to 20 s: each takes two.
const DESCRIPTORS: usize = 2800;

/// More connections than the gateway may have.
const CROWD: usize = DESCRIPTORS;

/// A crowd is gone within this time: a round, and the end of what it keeps from being done.
const CROWD_LASTS: Duration = Duration::from_secs(30);

/// A connection that is not accepted into the queue within this time means that the queue is full.
const CROWD_PATIENCE: Duration = Duration::from_millis(100);

/// The file system of the state directory.
const STATE: &str = "/var/lib/gateway";

const CLOCK: &str = "/srv/clock";
const CLOCK_LIBRARY: &str = "/usr/local/lib/clock_jump.so";

/// A kill by signal is done within this time: the box has to start the program that does it.
const KILL_TAKES: Duration = Duration::from_secs(2);

/// `restart --force` cuts within this time: it gives work a second, and is a program that may have
/// to wait for a gateway that is stopped.
const FORCE_TAKES: Duration = Duration::from_secs(10);

/// Something that may cut what is in flight, and does so between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub at: CutAt,
    pub from: Instant,
    pub until: Instant,
}

/// Where something is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutAt {
    /// The clients' connections.
    Gateway,
    /// Requests at the server: the gateway answers them 502, and gives them to no other server.
    Server,
    /// New clients, where a crowd has every descriptor that clients may have: they get 503.
    Crowd,
}

impl Cut {
    fn within(length: Duration, at: CutAt) -> Self {
        let from = Instant::now();
        Self {
            at,
            from,
            until: from + length,
        }
    }
}

/// A command under way.
struct Pending {
    words: String,
    output: JoinHandle<Output>,
}

/// The box, its gateway, and the faults that last.
pub struct Scene<'a> {
    pub site: Site<'a>,
    configuration: String,
    stopped: Vec<(Victim, u32)>,
    crowd: Vec<TcpStream>,
    pending: Vec<Pending>,
    clock: i64,
    commands: u64,
    /// The state directory had no room in this round.
    pub disk_was_full: bool,
    /// What was done that may cut what a client has in flight.
    pub cuts: Vec<Cut>,
}

impl<'a> Scene<'a> {
    /// Installs the gateway and waits until it serves.
    pub fn set(systemd: &'a SystemdBox) -> Self {
        let site = Site::of_machine(systemd);
        let app = systemd.add_plain_user("app");
        systemd.must(&["mkdir", "-p", STATE]);
        systemd.must(&["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", STATE]);
        let library = compile_clock(systemd);
        systemd.copy_in(&library, CLOCK_LIBRARY);
        fs::remove_file(library).unwrap();
        set_clock(systemd, 0);
        systemd.write(
            &site.drop_in(),
            &format!(
                "[Service]\nLimitNOFILE={DESCRIPTORS}\nEnvironment=LD_PRELOAD={CLOCK_LIBRARY} CLOCK_JUMP_FILE={CLOCK}\n"
            ),
        );
        let front = FRONT.to_string();
        let install = ["gatewayctl", "install", "--now", "--run-as", &app.name];
        let behind = ["--listen", &front, "--", "node", NODE_APP, "{port}"];
        site.must(&[&install[..], &behind].concat());
        let configuration = systemd.read(&site.config()).unwrap() + CONFIGURATION;
        systemd.write(&site.config(), &configuration);
        site.must_systemctl(&["restart", "gateway"]);
        site.settled();
        Self {
            site,
            configuration,
            stopped: Vec::new(),
            crowd: Vec::new(),
            pending: Vec::new(),
            clock: 0,
            commands: 0,
            disk_was_full: false,
            cuts: Vec::new(),
        }
    }

    /// A round begins.
    pub fn begin_round(&mut self) {
        // What was done at the end of a round may cut something in the next one.
        let now = Instant::now();
        self.cuts.retain(|cut| cut.until > now);
        self.disk_was_full = false;
    }

    /// Does one step.
    pub fn perform(&mut self, act: Act) {
        match act {
            Act::Do(sudden) => self.sudden(sudden),
            Act::Begin(lasting) => self.begin(lasting),
            Act::End(lasting) => self.end(lasting),
        }
    }

    fn sudden(&mut self, sudden: Sudden) {
        match sudden {
            Sudden::Kill(victim) => {
                let pid = self.pid(victim);
                let cut = match victim {
                    Victim::Gateway => Some(CutAt::Gateway),
                    Victim::Sidecar => Some(CutAt::Server),
                    Victim::Journald => None,
                };
                self.cuts.extend(cut.map(|at| Cut::within(KILL_TAKES, at)));
                self.signal(pid, "KILL");
            }
            Sudden::Signal(name) => self.signal(self.pid(Victim::Gateway), name),
            Sudden::Command(words) => {
                if words.contains(&"--force") {
                    self.cuts.push(Cut::within(FORCE_TAKES, CutAt::Gateway));
                }
                self.command(words);
            }
            Sudden::Clock { seconds } => {
                self.clock += seconds;
                set_clock(self.site.systemd, self.clock);
            }
        }
    }

    fn begin(&mut self, lasting: Lasting) {
        match lasting {
            Lasting::Stopped(victim) => {
                let pid = self.pid(victim);
                self.signal(pid, "STOP");
                self.stopped.push((victim, pid));
            }
            Lasting::FullDisk => {
                self.disk_was_full = true;
                let fill = format!("dd if=/dev/zero of={STATE}/fill bs=64k 2>&1 || true");
                self.site.systemd.sh(&fill);
            }
            Lasting::Crowd => {
                self.cuts.push(Cut::within(CROWD_LASTS, CutAt::Crowd));
                self.crowd = self.site.systemd.in_netns(|| {
                    let connect = |_| TcpStream::connect_timeout(&FRONT, CROWD_PATIENCE).ok();
                    (0..CROWD).map_while(connect).collect()
                });
            }
            Lasting::BadConfiguration => {
                self.write_configuration(BAD_CONFIGURATION);
                self.command(&["gatewayctl", "reload"]);
            }
        }
    }

    fn end(&mut self, lasting: Lasting) {
        match lasting {
            Lasting::Stopped(victim) => {
                let ended = self.stopped.extract_if(.., |one| one.0 == victim);
                for (_, pid) in ended.collect::<Vec<_>>() {
                    self.signal(pid, "CONT");
                }
            }
            Lasting::FullDisk => {
                self.site
                    .systemd
                    .must(&["rm", "-f", &format!("{STATE}/fill")]);
            }
            Lasting::Crowd => self.crowd.clear(),
            Lasting::BadConfiguration => self.write_configuration(&self.configuration),
        }
    }

    /// Waits for every command under way; what each said.
    pub fn commands_ended(&mut self) -> Vec<(String, Output)> {
        let all = self.pending.drain(..);
        all.map(|one| (one.words, one.output.join().unwrap()))
            .collect()
    }

    fn pid(&self, victim: Victim) -> u32 {
        let main = |unit| self.site.property(unit, "MainPID").parse().unwrap_or(0);
        match victim {
            Victim::Gateway => main("gateway.service"),
            Victim::Journald => main("systemd-journald.service"),
            Victim::Sidecar => {
                let processes = self.site.processes();
                let node = processes.iter().rfind(|(_, name)| name == "node");
                node.map_or(0, |(pid, _)| *pid)
            }
        }
    }

    /// Sends a signal to a process of the box that may be gone; none for 0.
    fn signal(&self, pid: u32, name: &str) {
        if pid != 0 {
            self.site
                .systemd
                .run(&["kill", &format!("-{name}"), &pid.to_string()]);
        }
    }

    fn command(&mut self, words: &[&str]) {
        self.commands += 1;
        let mut command = self.site.systemd.command(words);
        if words == ["gatewayctl", "restart"] {
            command.args(["--json", "--reason", &format!("chaos {}", self.commands)]);
        }
        self.pending.push(Pending {
            words: words.join(" "),
            output: std::thread::spawn(move || command.output().unwrap()),
        });
    }

    fn write_configuration(&self, text: &str) {
        self.site.systemd.write(&self.site.config(), text);
    }
}

/// The library that lets the clock jump, compiled into a file of this machine.
fn compile_clock(systemd: &SystemdBox) -> std::path::PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/clock_jump.c");
    let library = std::env::temp_dir().join(format!("clock_jump-{}.so", systemd.leader()));
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(&library)
        .arg(source)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", all_of(&output));
    library
}

/// Sets by how much the gateway's clock is wrong. The file is written in place: it is mapped.
fn set_clock(systemd: &SystemdBox, seconds: i64) {
    let path = systemd.path(CLOCK);
    let nanoseconds = seconds.saturating_mul(1_000_000_000).to_ne_bytes();
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(path);
    std::os::unix::fs::FileExt::write_all_at(&file.unwrap(), &nanoseconds, 0).unwrap();
}
