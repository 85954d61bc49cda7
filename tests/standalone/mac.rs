//! A simulated launchd (`tests/launchd-sim`) and the home of its user.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::unistd::geteuid;

use crate::support::site::all_of;
use crate::support::{port, skip, wait};

pub const LABEL: &str = "org.gatewayctl.gateway";

/// A simulated launchd and the home of its user.
pub struct Mac {
    launchd: Child,
    dir: tempfile::TempDir,
    pub port: u16,
}

/// A part of the numbers of a command's calls of launchctl, from 1 on, each run of the tests another one: each
/// call is a life of a job. With `GATEWAY_TEST_EVERY_CALL` in the environment, all of them.
pub fn some_calls(part: u32) -> impl Iterator<Item = u32> {
    let part = match std::env::var_os("GATEWAY_TEST_EVERY_CALL") {
        Some(_) => 1,
        None => part,
    };
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    (1 + now.subsec_micros() % part..).step_by(part as usize)
}

impl Mac {
    /// None where the simulator cannot run.
    pub fn boot(switches: &[&str]) -> Option<Self> {
        if !skip::unless_there("python3") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        // A daemon's user gets at its files, too.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(dir.path().join("home")).unwrap();
        let mut launchd = Command::new("python3")
            .arg(simulator().join("launchd_sim.py"))
            .arg(dir.path())
            .args(switches)
            .env_clear()
            .env("HOME", dir.path().join("home"))
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = launchd.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Some(Self {
            launchd,
            dir,
            port: port::private(),
        })
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// What has the files of the machine: `/` of a Mac.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn run(&self, program: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        self.environment(&mut command);
        command.args(args).output().unwrap()
    }

    /// Gives a command nothing but what leads to this launchd.
    pub fn environment(&self, command: &mut Command) {
        command
            .current_dir(self.home())
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LAUNCHD_SIM", self.dir.path())
            .env("GATEWAY_LAUNCHD_ROOT", self.root())
            .env("GATEWAY_LAUNCHCTL", simulator().join("launchctl"))
            .env("GATEWAY_LAUNCHD_PID", self.launchd.id().to_string());
    }

    pub fn ctl(&self, args: &[&str]) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_gatewayctl"));
        self.run(program, &[&["--user"], args].concat())
    }

    /// A command that must succeed; what it printed.
    pub fn must(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        assert!(output.status.success(), "{args:?}: {}", all_of(&output));
        all_of(&output)
    }

    /// Runs the command that installs a server of Python's, with more flags.
    pub fn install_by<T>(&self, run: impl FnOnce(&[&str]) -> T, more: &[&str]) -> T {
        let listen = format!("127.0.0.1:{}", self.port);
        let begin = ["install", "--for", "launchd", "--now", "--listen", &listen];
        let server = [
            "--",
            "python3",
            "-m",
            "http.server",
            "{port}",
            "--bind",
            "127.0.0.1",
        ];
        run(&[&begin[..], more, &server].concat())
    }

    pub fn install(&self, more: &[&str]) -> Output {
        self.install_by(|line| self.ctl(line), more)
    }

    pub fn must_install(&self, more: &[&str]) -> String {
        let output = self.install(more);
        assert!(output.status.success(), "{}", all_of(&output));
        all_of(&output)
    }

    pub fn launchctl(&self, args: &[&str]) -> Output {
        self.run(&simulator().join("launchctl"), args)
    }

    /// What the simulator says of the job in a domain; none where it is not loaded there.
    pub fn print(&self, domain: &str) -> Option<String> {
        let target = match domain {
            "system" => format!("system/{LABEL}"),
            domain => format!("{domain}/{}/{LABEL}", geteuid()),
        };
        let output = self.launchctl(&["print", &target]);
        let text = String::from_utf8(output.stdout).unwrap();
        match output.status.code() {
            Some(0) => Some(text),
            Some(113) => None,
            code => panic!("{code:?}: {text}"),
        }
    }

    pub fn pid(&self, domain: &str) -> Option<i32> {
        let print = self.print(domain)?;
        let line = print.lines().find_map(|line| line.strip_prefix("\tpid = "));
        line?.parse().ok()
    }

    /// The process of the server behind the gateway.
    pub fn server(&self, domain: &str) -> String {
        let gateway = self.pid(domain).unwrap();
        wait::until("the gateway has a server", || {
            // Each thread has its own.
            let threads = std::fs::read_dir(format!("/proc/{gateway}/task")).ok()?;
            let children = threads
                .flatten()
                .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
            let children: Vec<String> = children.collect();
            let mut pids = children.iter().flat_map(|pids| pids.split_whitespace());
            // What is a launchctl soon ends.
            pids.find(|pid| {
                let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
                words.is_ok_and(|words| words.contains("http.server"))
            })
            .map(str::to_owned)
        })
    }

    /// The variables of that server.
    pub fn server_environment(&self, domain: &str) -> Vec<String> {
        let server = self.server(domain);
        let environment = std::fs::read(format!("/proc/{server}/environ")).unwrap();
        let variables = environment.split(|byte| *byte == 0);
        variables
            .map(|one| String::from_utf8_lossy(one).into_owned())
            .collect()
    }

    /// The socket that launchd holds, as descriptors are named in /proc.
    pub fn listener(&self) -> String {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X}", self.port);
        let mut rows = table
            .lines()
            .map(|row| row.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row[1].ends_with(&port) && row[3] == "0A");
        format!("socket:[{}]", row.unwrap()[9])
    }

    pub fn serves(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    pub fn plist(&self) -> PathBuf {
        self.home()
            .join(format!("Library/LaunchAgents/{LABEL}.plist"))
    }
}

impl Drop for Mac {
    fn drop(&mut self) {
        // The end of its input is its end, and that of its jobs.
        drop(self.launchd.stdin.take());
        let _ = self.launchd.wait();
    }
}

pub fn simulator() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/launchd-sim")
}
