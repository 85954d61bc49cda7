//! Under supervisors that follow one pid: s6, runit and supervisord, each with a service directory
//! of its own.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::gateway::{ctl_in, family_of, said, scrub};
use crate::support::load::{Load, Running};
use crate::support::report::Part;
use crate::support::{namespace, port, servers, wait};
use gateway::internals::Owner;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// New connections a second, besides everything else.
const RATE: f64 = 60.0;

/// Longer than any restart here: downloads begin and end in each generation.
const DOWNLOAD_TAKES: Duration = Duration::from_millis(1500);

/// A stop has 3 s for what is under way, and then some for the sidecar and the supervisor.
const END_LIMIT: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    S6,
    Runit,
    Supervisord,
}

impl Kind {
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::S6 => &["s6-svscan", "s6-supervise", "s6-svstat", "s6-svscanctl"],
            Self::Runit => &["runsvdir", "runsv", "sv"],
            Self::Supervisord => &["supervisord", "supervisorctl"],
        }
    }

    /// As `status` names it.
    fn name(self) -> &'static str {
        match self {
            Self::S6 => "s6",
            Self::Runit => "runit",
            Self::Supervisord => "supervisord",
        }
    }
}

/// A supervisor with one service, a gateway.
struct Supervised {
    kind: Kind,
    home: TempDir,
    addr: SocketAddr,
    supervisor: Child,
}

impl Supervised {
    fn start(kind: Kind) -> Self {
        let home = tempfile::Builder::new()
            .prefix("gw-sup-")
            .tempdir()
            .unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], port::private()));
        fs::copy(env!("CARGO_BIN_EXE_gateway"), home.path().join("gateway")).unwrap();
        fs::write(
            home.path().join("gateway.toml"),
            "[restart]\nstop_drain = \"3s\"\nmax_copies = 20\n",
        )
        .unwrap();
        let service = home.path().join("services/gateway");
        fs::create_dir_all(&service).unwrap();
        let at = |name: &str| home.path().join(name).display().to_string();
        let (log, config, state) = (at("log"), at("gateway.toml"), at("state"));
        let command = format!(
            "{} run --config {config} --state-dir {state} --listen {addr} -- {}",
            at("gateway"),
            servers::node().join(" ")
        );
        let mut supervisor = match kind {
            Kind::S6 | Kind::Runit => {
                let run = service.join("run");
                fs::write(&run, format!("#!/bin/sh\nexec {command} >>{log} 2>&1\n")).unwrap();
                fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
                let mut supervisor = Command::new(kind.programs()[0]);
                if kind == Kind::Runit {
                    // In a group of its own.
                    supervisor.arg("-P");
                }
                supervisor.arg(home.path().join("services"));
                supervisor
            }
            Kind::Supervisord => {
                let text = format!(
                    "[supervisord]\nnodaemon = true\nlogfile = {0}/supervisord.log\npidfile = {0}/supervisord.pid\nchildlogdir = {0}\n\
                     [unix_http_server]\nfile = {0}/ctl.sock\n\
                     [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
                     [supervisorctl]\nserverurl = unix://{0}/ctl.sock\n\
                     [program:gateway]\ncommand = {command}\nredirect_stderr = true\nstdout_logfile = {log}\nstopwaitsecs = 20\n",
                    home.path().display()
                );
                fs::write(home.path().join("supervisord.conf"), text).unwrap();
                let mut supervisor = Command::new("supervisord");
                supervisor
                    .arg("-c")
                    .arg(home.path().join("supervisord.conf"));
                supervisor
            }
        };
        scrub(&mut supervisor);
        let supervisor = supervisor
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self {
            kind,
            home,
            addr,
            supervisor,
        };
        wait::until("the gateway is ready", || {
            this.log().contains("[gateway] ready (").then_some(())
        });
        this
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    fn ctl(&self, args: &[&str]) -> Output {
        let output = ctl_in(&self.at("state")).args(args).output().unwrap();
        assert!(
            output.status.success(),
            "gatewayctl {args:?}: {}\n{}",
            said(&output),
            self.log()
        );
        output
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&self.ctl(&["status", "--json"]).stdout).unwrap()
    }

    /// The process that has the service.
    fn main_pid(&self) -> u32 {
        Owner::read(&self.at("state")).unwrap().pid
    }

    fn service(&self) -> PathBuf {
        self.at("services/gateway")
    }

    /// The pid that the supervisor follows.
    fn tracked(&self) -> u32 {
        let (output, text): (Output, fn(&str) -> Option<&str>) = match self.kind {
            Kind::S6 => (
                self.ask(
                    "s6-svstat",
                    &["-o".as_ref(), "pid".as_ref(), self.service().as_ref()],
                ),
                |text| Some(text.trim()),
            ),
            Kind::Runit => (
                self.ask("sv", &["status".as_ref(), self.service().as_ref()]),
                |text| text.split("(pid ").nth(1)?.split(')').next(),
            ),
            Kind::Supervisord => (self.supervisorctl("pid"), |text| Some(text.trim())),
        };
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        text(&out)
            .and_then(|pid| pid.parse().ok())
            .unwrap_or_else(|| panic!("{}", said(&output)))
    }

    fn supervisorctl(&self, verb: &str) -> Output {
        self.ask(
            "supervisorctl",
            &[
                "-c".as_ref(),
                self.at("supervisord.conf").as_ref(),
                verb.as_ref(),
                "gateway".as_ref(),
            ],
        )
    }

    fn ask(&self, program: &str, args: &[&Path]) -> Output {
        Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Through the supervisor, which goes with it.
    fn stop(&mut self) {
        match self.kind {
            Kind::S6 => drop(self.ask(
                "s6-svscanctl",
                &["-t".as_ref(), self.at("services").as_ref()],
            )),
            Kind::Runit => drop(self.ask("sv", &["force-stop".as_ref(), self.service().as_ref()])),
            Kind::Supervisord => drop(self.supervisorctl("stop")),
        }
        if self.kind != Kind::S6 {
            let end = if self.kind == Kind::Runit {
                Signal::SIGHUP
            } else {
                Signal::SIGTERM
            };
            kill(
                Pid::from_raw(i32::try_from(self.supervisor.id()).unwrap()),
                end,
            )
            .unwrap();
        }
        wait::within(END_LIMIT, || self.supervisor.try_wait().unwrap())
            .unwrap_or_else(|| panic!("{} stays", self.kind.name()));
    }

    fn load(&self) -> Running {
        let download = servers::node_download(1_000_000, DOWNLOAD_TAKES);
        let load = Load {
            path: "/pid".into(),
            new_per_second: RATE,
            kept: 6,
            websockets: 4,
            downloads: 2,
            download: Some(download),
            ..Load::on(self.addr)
        };
        let running = load.start();
        running.flows(Part::New, 10);
        running
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if self
            .supervisor
            .try_wait()
            .is_ok_and(|status| status.is_none())
        {
            self.stop();
        }
        for (pid, _) in family_of(&self.at("gateway.toml")) {
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- what the gateway said ---\n{}\n---", self.log());
        }
    }
}

fn life(kind: Kind) {
    if !kind
        .programs()
        .iter()
        .all(|program| crate::support::skip::unless_there(program))
        || !servers::have("node")
    {
        return;
    }
    let mut supervised = Supervised::start(kind);
    let status = supervised.status();
    assert!(
        status["supervisor"]
            .as_str()
            .unwrap()
            .starts_with(kind.name()),
        "{status}"
    );
    assert!(
        status["strategy"]
            .as_str()
            .unwrap()
            .starts_with("in-process"),
        "{status}"
    );
    let tracked = supervised.tracked();
    assert_eq!(u64::from(tracked), status["pid"].as_u64().unwrap());

    let running = supervised.load();
    for _ in 0..5 {
        supervised.ctl(&["restart"]);
        assert_eq!(
            (supervised.tracked(), supervised.main_pid()),
            (tracked, tracked),
            "{}",
            supervised.log()
        );
    }
    let mut mains = HashSet::from([tracked]);
    for _ in 0..4 {
        supervised.ctl(&["restart", "--fresh"]);
        assert_eq!(supervised.tracked(), tracked, "{}", supervised.log());
        assert!(mains.insert(supervised.main_pid()), "{}", supervised.log());
        assert!(
            supervised.status()["supervisor"]
                .as_str()
                .unwrap()
                .starts_with(kind.name())
        );
    }
    // Another program in its place: the next one runs it.
    fs::copy(env!("CARGO_BIN_EXE_gateway"), supervised.at("next")).unwrap();
    fs::rename(supervised.at("next"), supervised.at("gateway")).unwrap();
    supervised.ctl(&["restart", "--fresh"]);
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_eq!(
        inode(format!("/proc/{}/exe", supervised.main_pid()).into()),
        inode(supervised.at("gateway"))
    );
    assert_eq!(supervised.tracked(), tracked);
    running.flows(Part::New, 20);
    running.flows(Part::Idle, 3);
    running.flows(Part::Download, 1);
    let report = running.stop();
    eprintln!("{}: {report}", kind.name());
    report.assert_clean(&[
        (Part::New, 100),
        (Part::Busy, 50),
        (Part::Download, 3),
        (Part::WebSocket, 20),
    ]);

    supervised.stop();
    let config = supervised.at("gateway.toml");
    wait::until("nothing is left", || {
        family_of(&config).is_empty().then_some(())
    });
    assert!(
        std::net::TcpStream::connect(supervised.addr).is_err(),
        "nobody listens"
    );
}

#[test]
fn s6_follows_one_pid_through_every_restart() {
    life(Kind::S6);
}

#[test]
fn runit_follows_one_pid_through_every_restart() {
    life(Kind::Runit);
}

#[test]
fn supervisord_follows_one_pid_through_every_restart() {
    life(Kind::Supervisord);
}

/// `docker exec … sh -c 'setsid gateway run …'`: process 1 is its parent then, and starts nothing again.
/// It went on for ever, while the same under `timeout` exited with 1.
#[test]
fn what_a_shell_left_behind_exits_when_its_server_does_not_start_and_says_why() {
    let Some(mut namespace) = namespace::unshare() else {
        return;
    };
    let (dir, port) = (tempfile::tempdir().unwrap(), port::private());
    let (log, pid) = (dir.path().join("log"), dir.path().join("pid"));
    // It begins when it has lost its parent, and process 1 lives until it has ended.
    let inner = format!(
        "while ! grep -q '^PPid:.1$' /proc/$$/status; do sleep 0.01; done; \
         exec env container=docker {} run --listen 127.0.0.1:{port} --state-dir {} -- sh -c 'echo broken; exit 7' 2>{}",
        env!("CARGO_BIN_EXE_gateway"),
        dir.path().join("state").display(),
        log.display(),
    );
    let outer = format!(
        "sh -c 'setsid sh -c \"$1\" sh & echo $! > {pid}' sh \"$1\"; while kill -0 $(cat {pid}); do sleep 0.02; done",
        pid = pid.display()
    );
    scrub(&mut namespace);
    let mut first = namespace
        .args(["sh", "-c", &outer, "sh", &inner])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let ended = wait::within(wait::DEADLINE, || first.try_wait().unwrap());
    let _ = first.kill();
    let _ = first.wait();
    let log = fs::read_to_string(&log).unwrap();
    assert!(ended.is_some(), "it is still there: {log}");
    for words in [
        "exited with code 7",
        "it exits with 1 and is not tried again: nobody supervises it, container (",
    ] {
        assert!(log.contains(words), "no {words}: {log}");
    }
}
