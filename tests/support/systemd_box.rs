//! A real systemd as PID 1 in a throw-away copy of this machine's file system, up in about half a
//! second.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::base::Base;
use super::{namespace, skip, wait};

/// What the box needs beside root: Debian's systemd-container and dbus.
const PROGRAMS: [&str; 4] = ["systemd-nspawn", "nsenter", "dbus-daemon", "setpriv"];

/// What the host has enabled is not what a test wants to start; these directories hold the links.
const ENABLED: [&str; 4] = [
    "multi-user.target.wants",
    "timers.target.wants",
    "getty.target.wants",
    "sysinit.target.wants",
];

/// A boot takes 0.4 s, on a busy machine some seconds.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// `poweroff --force --force` calls reboot(2) at once.
const DOWN_LIMIT: Duration = Duration::from_secs(10);

/// systemd's own limit for a service that does not stop.
const ORDERLY_LIMIT: Duration = Duration::from_secs(100);

static NUMBER: AtomicU32 = AtomicU32::new(0);

static SWEEP: Once = Once::new();

/// A user of the box.
#[derive(Clone, Debug)]
pub struct BoxUser {
    /// The name.
    pub name: String,
    /// The number.
    pub uid: u32,
}

/// A booted box; powered off, unmounted and removed when dropped.
pub struct SystemdBox {
    machine: String,
    base: PathBuf,
    nspawn: Child,
    leader: u32,
}

/// Mounts that end when dropped, so that a boot that fails leaves nothing either.
struct Mounts<'a> {
    base: &'a Path,
    keep: bool,
}

impl Drop for Mounts<'_> {
    fn drop(&mut self) {
        if !self.keep {
            unmount(self.base);
        }
    }
}

/// Why no box can be booted here, if so.
pub fn skip_reason() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("a systemd box takes root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = PROGRAMS
        .iter()
        .find(|name| !std::env::split_paths(&path).any(|dir| dir.join(name).exists()));
    missing.map(|name| format!("{name} is missing: apt-get install systemd-container dbus"))
}

impl SystemdBox {
    /// Boots a box, or says why there is none. Where CI is set, none is a failure.
    pub fn boot_or_skip(name: &str) -> Option<Self> {
        Self::boot_on_or_skip(Base::Machine, name)
    }

    /// The same on the file system of `base`.
    pub fn boot_on_or_skip(base: Base, name: &str) -> Option<Self> {
        let lower = skip_reason().map_or_else(|| base.root(), Err);
        match lower {
            Ok(lower) => Some(Self::boot_over(base, &lower, name)),
            Err(reason) => {
                skip::because(&reason);
                None
            }
        }
    }

    /// Boots a box of this machine's. `name` is for people who look at the process list.
    pub fn boot(name: &str) -> Self {
        Self::boot_over(Base::Machine, Path::new("/"), name)
    }

    fn boot_over(from: Base, lower: &Path, name: &str) -> Self {
        SWEEP.call_once(sweep);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let machine = format!("gw-{name}-{}-{number}", std::process::id());
        let base = std::env::temp_dir().join(format!("{machine}.box"));
        fs::create_dir_all(base.join("mem")).unwrap();
        fs::create_dir_all(base.join("root")).unwrap();
        let mut mounts = Mounts {
            base: &base,
            keep: false,
        };
        let (mem, root) = (base.join("mem"), base.join("root"));
        host(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=2g", "tmpfs"])
                .arg(&mem),
        );
        fs::create_dir(mem.join("up")).unwrap();
        fs::create_dir(mem.join("wk")).unwrap();
        let layers = format!(
            "lowerdir={1},upperdir={0}/up,workdir={0}/wk",
            mem.display(),
            lower.display()
        );
        host(
            Command::new("mount")
                .args(["-t", "overlay", "overlay", "-o", &layers])
                .arg(&root),
        );
        fs::write(root.join("etc/machine-id"), "").unwrap();
        for dir in ENABLED {
            let _ = fs::remove_dir_all(root.join("etc/systemd/system").join(dir));
        }
        for unit in ["getty.target", "console-getty.service"] {
            let _ = symlink("/dev/null", root.join("etc/systemd/system").join(unit));
        }
        let log = fs::File::create(base.join("boot.log")).unwrap();
        let mut nspawn = within_groups(&groups_of(&machine))
            .args(["systemd-nspawn", "-D"])
            .arg(&root)
            .args([
                "--register=no",
                "--keep-unit",
                "--private-network",
                "-M",
                &machine,
                "--console=pipe",
                "-b",
            ])
            .env_remove("NOTIFY_SOCKET")
            .envs(from.setting_of_groups())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        fs::write(base.join("nspawn.pid"), nspawn.id().to_string()).unwrap();
        let leader = wait::within(BOOT_LIMIT, || leader_of(&mut nspawn));
        mounts.keep = leader.is_some();
        let Some(leader) = leader else {
            let _ = nspawn.kill();
            let _ = nspawn.wait();
            panic!(
                "the box does not boot: {}",
                fs::read_to_string(base.join("boot.log")).unwrap_or_default()
            );
        };
        drop(mounts);
        let this = Self {
            machine,
            base,
            nspawn,
            leader,
        };
        let up = this.run(&["systemctl", "is-system-running", "--wait"]);
        let state = String::from_utf8_lossy(&up.stdout).trim().to_owned();
        assert!(
            state == "running" || state == "degraded",
            "the box is {state}: {}",
            this.boot_log()
        );
        this
    }

    /// The pid of the box's first process, seen from here.
    pub fn leader(&self) -> u32 {
        self.leader
    }

    /// The root of the box as seen from here, with its /run and /tmp.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.leader))
    }

    /// A path of the box as seen from here.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        self.root().join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// Writes a file, its directories made where missing.
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Reads a file.
    pub fn read(&self, inside: &str) -> io::Result<String> {
        fs::read_to_string(self.path(inside))
    }

    /// Copies a file of this machine into the box, its mode bits kept.
    pub fn copy_in(&self, from: impl AsRef<Path>, inside: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(from, path).unwrap();
    }

    /// Both programs, in /usr/local/bin.
    pub fn install_programs(&self) {
        for (name, program) in [
            ("gateway", env!("CARGO_BIN_EXE_gateway")),
            ("gatewayctl", env!("CARGO_BIN_EXE_gatewayctl")),
        ] {
            let inside = format!("/usr/local/bin/{name}");
            self.copy_in(program, &inside);
            fs::set_permissions(self.path(&inside), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// Runs a command as root of the box to its end.
    pub fn run<S: AsRef<str>>(&self, argv: &[S]) -> Output {
        self.command(argv).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    pub fn must<S: AsRef<str>>(&self, argv: &[S]) -> String {
        told(
            &argv.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" "),
            self.run(argv),
        )
    }

    /// The exposure score of a unit, or of a unit file with `--offline=true`: the last word of
    /// `systemd-analyze security`.
    pub fn exposure(&self, what: &[&str]) -> f64 {
        let text = self.must(&[&["systemd-analyze", "security", "--no-pager"], what].concat());
        let line = text
            .lines()
            .find(|line| line.contains("Overall exposure level"))
            .unwrap_or_default();
        line.rsplit(": ")
            .next()
            .and_then(|rest| rest.split(' ').next())
            .and_then(|score| score.parse().ok())
            .unwrap_or_else(|| panic!("{text}"))
    }

    /// A shell script that must succeed; its standard output.
    pub fn sh(&self, script: &str) -> String {
        self.must(&["sh", "-ec", script])
    }

    /// A command as root of the box, not yet started.
    pub fn command<S: AsRef<str>>(&self, argv: &[S]) -> Command {
        let mut command = self.enter();
        command
            .args(["env", "-i", "HOME=/root", "USER=root", "LANG=C.UTF-8"])
            .arg(path_variable());
        command
            .args(argv.iter().map(AsRef::as_ref))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command as a user of the box, with runtime directory and bus, in its home.
    pub fn run_as_user<S: AsRef<str>>(&self, user: &BoxUser, argv: &[S]) -> Output {
        let BoxUser { name, uid } = user;
        let mut command = self.enter();
        command
            .args([
                "setpriv",
                "--reuid",
                name,
                "--regid",
                name,
                "--init-groups",
                "--",
                "env",
                "-i",
                "-C",
            ])
            .arg(format!("/home/{name}"));
        command
            .arg(format!("HOME=/home/{name}"))
            .arg(format!("USER={name}"))
            .arg("LANG=C.UTF-8")
            .arg(path_variable());
        command.arg(format!("XDG_RUNTIME_DIR=/run/user/{uid}"));
        command.arg(format!(
            "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"
        ));
        command
            .args(argv.iter().map(AsRef::as_ref))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a command as a user that must succeed; its standard output.
    pub fn must_as_user<S: AsRef<str>>(&self, user: &BoxUser, argv: &[S]) -> String {
        told(
            &argv.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" "),
            self.run_as_user(user, argv),
        )
    }

    /// Makes a user whose manager runs, by lingering. The name is that of [`Self::add_plain_user`].
    pub fn add_user(&self, part: &str) -> BoxUser {
        let user = self.add_plain_user(part);
        // By a process of the box's own control groups: a newer logind asks which unit the caller is of.
        let linger = ["loginctl", "enable-linger", &user.name];
        self.must(&[&["systemd-run", "--quiet", "--wait", "--pipe"], &linger[..]].concat());
        // Starting is awaited: the unit is of Type=notify.
        self.must(&["systemctl", "start", &format!("user@{}.service", user.uid)]);
        user
    }

    /// Makes a user without a manager. The box begins with the users of this machine, so the name is
    /// `part` and something that nobody there is called.
    pub fn add_plain_user(&self, part: &str) -> BoxUser {
        let name = format!("{part}-of-gateway-test");
        self.must(&["useradd", "-m", "-s", "/bin/bash", &name]);
        let uid = self.must(&["id", "-u", &name]).trim().parse().unwrap();
        BoxUser { name, uid }
    }

    /// Runs `f` on a thread that is in the network of the box; threads and tasks that it starts
    /// are, too.
    pub fn in_netns<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        namespace::in_network_of(self.leader, f)
    }

    /// `systemctl poweroff`: every service is stopped in order. How long it took until nothing was
    /// left.
    pub fn power_off(&mut self) -> Duration {
        let begun = Instant::now();
        self.must(&["systemctl", "--no-block", "poweroff"]);
        wait::within(ORDERLY_LIMIT, || self.nspawn.try_wait().ok().flatten())
            .unwrap_or_else(|| panic!("it stays up: {}", self.boot_log()));
        begun.elapsed()
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "-t",
            &self.leader.to_string(),
            "-m",
            "-u",
            "-i",
            "-n",
            "-p",
            "-C",
            "-r",
            "-w",
            "--",
        ]);
        command
    }

    fn boot_log(&self) -> String {
        fs::read_to_string(self.base.join("boot.log")).unwrap_or_default()
    }
}

impl Drop for SystemdBox {
    fn drop(&mut self) {
        let _ = self
            .enter()
            .args(["systemctl", "poweroff", "--force", "--force"])
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .status();
        if wait::within(DOWN_LIMIT, || self.nspawn.try_wait().ok().flatten()).is_none() {
            let _ = self.nspawn.kill();
            let _ = self.nspawn.wait();
        }
        unmount(&self.base);
        remove_groups(&groups_of(&self.machine));
    }
}

/// The control groups of a box, one in each hierarchy that the box's systemd may use: nspawn makes
/// the box's own group below the one that it runs in, and boxes that shared it would take each
/// other's services for theirs.
fn groups_of(machine: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let mut groups = Vec::new();
    for mount in mounts.lines() {
        let words: Vec<&str> = mount.split(' ').collect();
        let [_, at, kind, options, ..] = words[..] else {
            continue;
        };
        let hierarchy = match kind {
            "cgroup2" => "0::",
            "cgroup" if options.split(',').any(|one| one == "name=systemd") => ":name=systemd:",
            _ => continue,
        };
        let path = own
            .lines()
            .find_map(|line| Some(line.split_once(hierarchy)?.1));
        let path = path.unwrap_or_default().trim_start_matches('/');
        groups.push(Path::new(at).join(path).join(machine));
    }
    groups
}

/// A command that makes these groups and runs another command in them.
fn within_groups(groups: &[PathBuf]) -> Command {
    let script = "while [ \"$1\" != -- ]; do mkdir \"$1\" && echo $$ > \"$1/cgroup.procs\"; shift; done; shift; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args(groups).arg("--");
    command
}

/// Removes groups, which are empty by now, and those in them.
fn remove_groups(groups: &[PathBuf]) {
    for group in groups {
        let _ = Command::new("find")
            .arg(group)
            .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
            .stderr(Stdio::null())
            .status();
    }
}

fn path_variable() -> &'static str {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

/// The box's first process, once its manager can be spoken to.
fn leader_of(nspawn: &mut Child) -> Option<u32> {
    if let Ok(Some(_)) = nspawn.try_wait() {
        return None;
    }
    let tasks = fs::read_dir(format!("/proc/{}/task", nspawn.id())).ok()?;
    let children = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<u32> = children
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    // Until the file system of the box is in place, the first child still sees ours, where there
    // may be such a socket, too.
    let own = fs::metadata("/proc/self/ns/mnt").ok()?;
    pids.into_iter().find(|pid| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(format!("/proc/{pid}/ns/mnt")).is_ok_and(|other| other.ino() != own.ino())
            && fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.trim() == "systemd")
            && Path::new(&format!("/proc/{pid}/root/run/systemd/private")).exists()
    })
}

/// Takes down the boxes of test processes that were killed and could not do it themselves.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for base in entries.flatten().map(|entry| entry.path()) {
        let name = base
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(machine) = name
            .strip_prefix("gw-")
            .and_then(|rest| rest.strip_suffix(".box"))
        else {
            continue;
        };
        let owner = machine
            .rsplit('-')
            .nth(1)
            .and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_none_or(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            continue;
        }
        // Its name in the command line shows that the number still means the same process.
        let nspawn = fs::read_to_string(base.join("nspawn.pid")).unwrap_or_default();
        let line = fs::read_to_string(format!("/proc/{nspawn}/cmdline")).unwrap_or_default();
        if line.contains(&format!("gw-{machine}")) {
            let _ = Command::new("kill").args(["-KILL", &nspawn]).status();
            wait::within(DOWN_LIMIT, || {
                (!Path::new(&format!("/proc/{nspawn}")).exists()).then_some(())
            });
        }
        unmount(&base);
        remove_groups(&groups_of(&format!("gw-{machine}")));
    }
}

fn unmount(base: &Path) {
    for dir in ["root", "mem"] {
        let dir = base.join(dir);
        let gone = Command::new("umount")
            .arg(&dir)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !gone {
            let _ = Command::new("umount")
                .arg("--lazy")
                .arg(&dir)
                .stderr(Stdio::null())
                .status();
        }
        // Only when empty: never into what may still be mounted there.
        let _ = fs::remove_dir(&dir);
    }
    for file in ["boot.log", "nspawn.pid", ".#root.lck"] {
        let _ = fs::remove_file(base.join(file));
    }
    let _ = fs::remove_dir(base);
}

fn host(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn told(what: &str, output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {}\n{text}\n{errors}",
        output.status
    );
    text
}
