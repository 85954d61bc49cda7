//! A program as a container engine starts it: process 1 of its own namespaces of processes, mounts and network, as an ordinary
//! user without capabilities, with the root of an image.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use gateway::internals::PidFd;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::{Target, block_on, get};
use super::{namespace, wait};

/// Who runs in the images and manifests of `packaging`.
pub const USER: &str = "65532:65532";

/// Mounts what every container has, and becomes the program: ROOT ro|rw HOST_DIRECTORY... -- PROGRAM ARGUMENT...
const ENTER: &str = r#"set -e
root=$1; mode=$2; shift 2
ip link set lo up
mount --bind "$root" "$root"
while [ "$1" != -- ]; do mount --bind "$1" "$root$1"; shift; done
shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777,size=64m shm "$root/dev/shm"
mount -o "remount,bind,$mode" "$root"
exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid chroot --userspec="$USER" "$root" "$@""#;

/// What a container is started with.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its root directory.
    pub root: PathBuf,
    /// Directories and files of this machine that it sees, at the same places.
    pub shared: Vec<String>,
    /// Whether the root may be written.
    pub writable: bool,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
}

/// A container that runs; killed when dropped.
pub struct Pod {
    outside: Child,
    /// Process 1, in numbers of this machine.
    pid: u32,
    first: PidFd,
    container: Container,
    log: tempfile::NamedTempFile,
}

impl Container {
    /// A root in which programs of this machine run, beside what is put there.
    pub fn with_programs_of_this_machine(root: &Path, programs: &[&str]) -> Self {
        let shared: Vec<String> = ["/usr/lib", "/usr/lib64", "/usr/share"]
            .iter()
            .chain(programs)
            .map(|&path| path.to_owned())
            .collect();
        for dir in shared[..3].iter().map(String::as_str).chain(["/usr/bin"]) {
            fs::create_dir_all(root.join(dir.trim_start_matches('/'))).unwrap();
        }
        for program in programs {
            fs::write(root.join(program.trim_start_matches('/')), "").unwrap();
        }
        for dir in ["lib", "lib64"] {
            symlink(format!("usr/{dir}"), root.join(dir)).unwrap();
        }
        Self {
            root: root.to_owned(),
            shared,
            writable: false,
            command: Vec::new(),
            env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        }
    }

    /// Starts it; none, and the test is skipped, where no namespace may be made.
    pub fn start(&self) -> Option<Pod> {
        for dir in ["proc", "dev"] {
            fs::create_dir_all(self.root.join(dir)).unwrap();
        }
        let mut command = namespace::unshare()?;
        let log = tempfile::NamedTempFile::new().unwrap();
        let mode = if self.writable { "rw" } else { "ro" };
        command
            .args(["--net", "sh", "-c", ENTER, "enter"])
            .arg(&self.root)
            .arg(mode)
            .args(&self.shared)
            .arg("--")
            .args(&self.command)
            .env_clear()
            .envs(self.env.iter().cloned())
            .env("USER", USER)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap());
        let outside = command.spawn().unwrap();
        let pid = wait::until("unshare has its child", || {
            let children = format!("/proc/{0}/task/{0}/children", outside.id());
            fs::read_to_string(children).ok()?.trim().parse().ok()
        });
        let container = self.clone();
        Some(Pod {
            outside,
            pid,
            first: PidFd::open(pid).unwrap(),
            container,
            log,
        })
    }
}

impl Pod {
    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// Runs `what` on a thread that is in its network.
    pub fn in_network<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        namespace::in_network_of(self.pid, what)
    }

    /// The status of an answer, as a kubelet asks for it; none where nobody answers.
    pub fn probe(&self, port: u16, path: &str) -> Option<u16> {
        let target = Target::Tcp(([127, 0, 0, 1], port).into());
        let answer = self.in_network(|| block_on(get(&target, path)));
        answer.ok().map(|answer| answer.status())
    }

    /// Waits until the path is answered with success.
    pub fn ready(&self, port: u16, path: &str) {
        wait::within(wait::DEADLINE, || {
            (self.probe(port, path) == Some(200)).then_some(())
        })
        .unwrap_or_else(|| panic!("{path} is not ready: {}", self.log()));
    }

    /// `kubectl exec`: a program in the same namespaces, as the same user.
    pub fn exec(&self, command: &[&str]) -> Output {
        let (user, group) = USER.split_once(':').unwrap();
        Command::new("nsenter")
            .args(["-t", &self.pid.to_string(), "-m", "-n", "-p", "-r", "-w"])
            .args(["-S", user, "-G", group, "--"])
            .args(command)
            .env_clear()
            .envs(self.container.env.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// A program of this machine in its network.
    pub fn beside(&self, command: &[&str]) -> io::Result<Child> {
        Command::new("nsenter")
            .args(["-t", &self.pid.to_string(), "-n", "--"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM).unwrap();
    }

    /// How it ends within the grace period.
    pub fn ended(&mut self, grace: Duration) -> ExitStatus {
        wait::within(grace, || self.outside.try_wait().unwrap())
            .unwrap_or_else(|| panic!("it still runs after {grace:?}: {}", self.log()))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Process 1 has become another user, and so forgot the signal of --kill-child (prctl(2),
        // PR_SET_PDEATHSIG): it would outlive unshare, which ends after it.
        let _ = self.first.signal(Signal::SIGKILL);
        let _ = self.outside.wait();
    }
}
