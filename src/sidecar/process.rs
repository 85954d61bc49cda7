//! One process of a sidecar: its own group, an empty signal mask, and an end that is noticed by
//! pidfd.
#![allow(unsafe_code, reason = "pre_exec runs between fork and exec")]

use std::fmt;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask};
use nix::unistd::{Pid, User};

use super::environment::Inherited;
use super::keeper::{Kept, Pipes};
use crate::config::{Dur, StdinMode};
use crate::os::credentials::Credentials;
use crate::os::file_access::{self, Access};
use crate::os::platform;
use crate::os::process::{Ended, PidFd, in_words, living_in_group};
use crate::text::mistyped_command::{Mistyped, mistyped};

/// How much likelier than the gateway the kernel ends a sidecar when memory runs out (proc(5),
/// oom_score_adj; -1000 to 1000).
const OOM_SCORE_ABOVE_OURS: i32 = 200;

/// How long the rest of a group may take to end after its leader did, before it is killed.
const STRAGGLERS: Duration = Duration::from_millis(200);

/// Between two looks at a group whose members cannot be waited for, for want of descriptors.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a killed process may take to end: the kernel frees its memory first. One that takes
/// longer waits for a device that does not answer, and may do so for ever.
const KILLED: Duration = Duration::from_secs(30);

/// A running child in a process group of its own.
#[derive(Debug)]
pub struct ChildProcess {
    kept: Kept,
    /// The process that took the place of the child, which has ended.
    heir: Option<(u32, PidFd)>,
    ended: Ended,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEnd {
    Status(ExitStatus),
    /// It has ended, and a debugger has its exit status.
    Unknown,
    /// It has ended, and another process than the gateway was its parent.
    OfHeir,
    /// It was killed, and has not ended.
    Stuck,
}

impl ChildEnd {
    pub fn success(self) -> bool {
        matches!(self, Self::Status(status) if status.success())
    }

    /// The signal that ended it.
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Status(status) => status.signal(),
            Self::Unknown | Self::OfHeir | Self::Stuck => None,
        }
    }
}

/// In words.
impl fmt::Display for ChildEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self {
            Self::Status(status) => status,
            Self::Unknown => return f.write_str("ended, and a debugger keeps its exit status"),
            Self::OfHeir => return f.write_str("ended"),
            Self::Stuck => {
                return f.write_str("was killed and has not ended: it waits in the kernel, as for a disk that does not answer");
            }
        };
        f.write_str(&in_words(*status))
    }
}

impl ChildProcess {
    /// Starts `argv` with the inherited environment and `extra` variables over it. When this is
    /// given up while the program is being loaded, the process is killed.
    ///
    /// # Errors
    /// When the program cannot be executed; the text names it and says what to do.
    pub async fn spawn(
        argv: &[String],
        cwd: Option<&Path>,
        inherited: &Arc<Inherited>,
        extra: &[(String, String)],
        stdin: StdinMode,
    ) -> Result<(Self, Pipes), String> {
        if argv.is_empty() {
            return Err("no command".to_owned());
        }
        let (argv, extra) = (argv.to_owned(), extra.to_owned());
        let inherited = Arc::clone(inherited);
        let cwd = match (&inherited.directory, cwd) {
            (Some(directory), Some(cwd)) => Some(directory.join(cwd)),
            (None, Some(cwd)) => Some(cwd.to_owned()),
            (directory, None) => directory.clone(),
        };
        let started = Kept::start(move || {
            let mut command = command(&argv[0], &inherited, stdin);
            command.args(&argv[1..]).envs(extra);
            if let Some(cwd) = &cwd {
                command.current_dir(cwd);
            }
            let spawned = command.spawn();
            spawned.map_err(|error| explain(&argv, cwd.as_deref(), &error))
        });
        let (kept, pipes) = started.await?;
        let ended = kept.pidfd().ended();
        let heir = None;
        Ok((Self { kept, heir, ended }, pipes))
    }

    /// The main process.
    pub fn id(&self) -> u32 {
        self.heir.as_ref().map_or(self.group(), |(pid, _)| *pid)
    }

    /// The number of the group, which is the pid of the child that was started.
    pub fn group(&self) -> u32 {
        self.kept.pid()
    }

    /// Another process of the group is the main one from now on: the one before has ended. The child
    /// that was started is not reaped meanwhile, so the number of the group cannot become another's.
    ///
    /// # Errors
    /// When that process is gone, or is not of the group.
    pub fn follow(&mut self, heir: u32) -> io::Result<()> {
        let pidfd = PidFd::open(heir)?;
        if !living_in_group(self.group()).contains(&heir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.ended = pidfd.ended();
        self.heir = Some((heir, pidfd));
        Ok(())
    }

    /// Waits for the end, without reaping: the pid stays its own until [`reap`](Self::reap).
    pub async fn ended(&self) {
        self.ended.wait().await;
    }

    /// Signals the main process alone.
    ///
    /// # Errors
    /// ESRCH when it is gone.
    pub fn signal_main(&self, signal: Signal) -> io::Result<()> {
        let heir = self.heir.as_ref().map(|(_, pidfd)| pidfd);
        heir.unwrap_or(self.kept.pidfd()).signal(signal)
    }

    /// Signals the whole group.
    pub fn signal(&self, signal: Signal) {
        self.kept.signal(signal);
    }

    /// SIGTERM, `patience`, SIGKILL; returns how it ended. The patience is for the whole group: a
    /// shell or npm that was put in front of the server is often the first to go.
    pub async fn stop(mut self, patience: Duration) -> ChildEnd {
        self.signal(Signal::SIGTERM);
        // A stopped process must continue to see its SIGTERM.
        self.signal(Signal::SIGCONT);
        let all = async {
            self.ended().await;
            group_ended(self.group()).await;
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            self.signal(Signal::SIGKILL);
            if tokio::time::timeout(KILLED, self.ended()).await.is_err() {
                return ChildEnd::Stuck;
            }
        }
        self.reap().await
    }

    /// Ends what is left of the group and takes the exit status. Call after [`ended`](Self::ended).
    pub async fn reap(&mut self) -> ChildEnd {
        let group = self.group();
        if others_in_group(group) {
            self.signal(Signal::SIGTERM);
            let _ = tokio::time::timeout(STRAGGLERS, group_ended(group)).await;
            self.signal(Signal::SIGKILL);
        }
        let status = self.kept.reap().await;
        match &self.heir {
            Some(_) => ChildEnd::OfHeir,
            None => status.map_or(ChildEnd::Unknown, ChildEnd::Status),
        }
    }
}

/// A program that will run in a process group of its own, with the inherited environment.
fn command(program: &str, inherited: &Inherited, stdin: StdinMode) -> Command {
    let mut command = Command::new(program);
    let environment = inherited.environment.iter();
    command
        .env_clear()
        .envs(environment.map(|(name, value)| (name, value)))
        .stdin(match stdin {
            StdinMode::Null => Stdio::null(),
            StdinMode::Hold => Stdio::piped(),
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let limit = inherited.open_files;
    let gateway = nix::unistd::getpid();
    let oom_score = own_oom_score()
        .saturating_add(OOM_SCORE_ABOVE_OURS)
        .min(1000)
        .to_string();
    // SAFETY: prepare_child makes system calls only, all of them async-signal-safe, and
    // allocates nothing.
    unsafe { command.pre_exec(move || prepare_child(gateway, limit, oom_score.as_bytes())) };
    command
}

fn others_in_group(group: u32) -> bool {
    // Signal 0 also finds the zombie leader, which does not count as alive: look closer then.
    killpg(Pid::from_raw(group as i32), None).is_ok() && !living_in_group(group).is_empty()
}

/// Waits until no process of the group lives.
async fn group_ended(group: u32) {
    while let Some(member) = living_in_group(group).pop() {
        // Looked at again: the number could have become another process's before it was opened.
        match PidFd::open(member) {
            Ok(pidfd) if living_in_group(group).contains(&member) => pidfd.ended().wait().await,
            Ok(_) => {}
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

fn prepare_child(gateway: Pid, open_files: Option<(u64, u64)>, oom_score: &[u8]) -> io::Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    // A gateway that is killed takes its sidecars along; otherwise they would stay as orphans on
    // their ports.
    platform::die_with_parent(Signal::SIGTERM)?;
    if nix::unistd::getppid() != gateway {
        return Err(io::ErrorKind::Interrupted.into());
    }
    // A sidecar gets its three descriptors and none that the gateway was started with or that a
    // library did not mark.
    platform::mark_rest_close_on_exec();
    if let Some((soft, hard)) = open_files {
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    }
    // Every user may write it as long as the score grows; where /proc is missing, the score stays.
    if let Ok(file) = nix::fcntl::open(
        c"/proc/self/oom_score_adj",
        nix::fcntl::OFlag::O_WRONLY,
        nix::sys::stat::Mode::empty(),
    ) {
        let _ = nix::unistd::write(&file, oom_score);
    }
    Ok(())
}

fn own_oom_score() -> i32 {
    std::fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Why a spawn was given up after `limit`.
pub fn not_loaded(argv: &[String], limit: Duration) -> String {
    let program = argv.first().map_or("", String::as_str);
    let limit = Dur(limit);
    format!(
        "cannot start {program}: the system has not loaded it in {limit} (does its disk answer?)"
    )
}

fn explain(argv: &[String], cwd: Option<&Path>, error: &io::Error) -> String {
    let program = argv.first().map_or("", String::as_str);
    if error.kind() == io::ErrorKind::PermissionDenied
        && let Some(why) = in_the_way(program, cwd)
    {
        return format!("cannot start {program}: {why}");
    }
    if let Some(cwd) = cwd.filter(|cwd| !cwd.is_dir()) {
        return format!(
            "cannot start {program}: its directory {} does not exist",
            cwd.display()
        );
    }
    if error.kind() == io::ErrorKind::NotFound
        && let Some(Mistyped {
            why,
            command,
            words,
        }) = mistyped(argv)
    {
        return format!(
            "cannot start `{program}`: command not found, because {why}; in a terminal: gateway run {command}; in a configuration: {words:?}"
        );
    }
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("cannot start {program}: command not found (check its spelling and PATH)")
        }
        io::ErrorKind::PermissionDenied => {
            format!("cannot start {program}: permission denied (is it executable?)")
        }
        _ => format!("cannot start {program}: {error}"),
    }
}

/// What keeps this process from its directory or its program, with who it is.
fn in_the_way(program: &str, cwd: Option<&Path>) -> Option<String> {
    let me = Credentials::of_this_process();
    let way = |path: &Path, access| {
        let barrier = file_access::barrier(&me, true, path, access);
        barrier.ok().flatten()
    };
    let directory = cwd.and_then(|cwd| way(cwd, Access::Enter));
    let file = Path::new(program).is_absolute().then(|| Path::new(program));
    let barrier = directory.or_else(|| way(file?, Access::Run))?;
    let user = match User::from_uid(me.uid) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {}", me.uid),
    };
    Some(format!(
        "{user} cannot {} {} (permission denied)",
        barrier.access,
        barrier.path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
    use tokio::net::unix::pipe;

    use super::*;

    async fn shell(script: &str) -> (ChildProcess, Pipes) {
        let inherited = Arc::new(Inherited {
            environment: std::env::vars_os().collect(),
            set: Vec::new(),
            open_files: None,
            directory: None,
        });
        let argv = ["sh".into(), "-c".into(), script.into()];
        ChildProcess::spawn(&argv, None, &inherited, &[], StdinMode::Null)
            .await
            .unwrap()
    }

    /// Reads standard output; standard error stays open, or a shell that complains would die.
    fn output(pipes: &Pipes) -> BufReader<pipe::Receiver> {
        let out = pipes.out.try_clone().unwrap();
        BufReader::new(pipe::Receiver::from_owned_fd(out).unwrap())
    }

    #[tokio::test]
    async fn a_sidecar_inherits_its_three_descriptors_and_no_other() {
        let (leak, _other) = nix::unistd::pipe().unwrap();
        assert!(leak.as_raw_fd() > 2);
        let (mut process, pipes) = shell("ls -l /proc/self/fd").await;
        let mut text = String::new();
        output(&pipes).read_to_string(&mut text).await.unwrap();
        process.ended().await;
        process.reap().await;
        // ls has the directory itself open.
        let others: Vec<&str> = text
            .lines()
            .filter(|line| line.contains(" -> ") && !line.contains("-> /proc/"))
            .collect();
        assert_eq!(others.len(), 3, "{text}");
    }

    #[tokio::test]
    async fn what_a_shell_put_in_front_leaves_behind_may_end_in_its_own_time() {
        let (process, pipes) = shell(
            "(trap 'sleep 0.6; echo done; exit' TERM; echo up; while :; do sleep 0.05; done) & trap 'exit 0' TERM; wait",
        ).await;
        let mut lines = output(&pipes).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("up"));
        process.stop(Duration::from_secs(20)).await;
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("done"));
    }

    #[tokio::test]
    async fn a_forgotten_process_takes_its_group_along_though_its_leader_is_gone() {
        let (process, pipes) = shell("sleep 60 & echo $!").await;
        let mut lines = output(&pipes).lines();
        lines.next_line().await.unwrap();
        process.ended().await;
        let group = process.id();
        assert_eq!(living_in_group(group).len(), 1);
        drop(process);
        tokio::time::timeout(Duration::from_secs(10), group_ended(group))
            .await
            .unwrap();
    }
}
