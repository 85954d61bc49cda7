//! The twin of a pidfd on a system without pidfds: pid and start time, compared before each signal,
//! and the end of the process by kqueue(2).
//!
//! Within microseconds between the comparison and the signal a process could end, be reaped, and
//! its pid be given again, unless it is a child that was not reaped yet.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::ended::Ended;
use super::key::ProcessKey;

/// The length of pid and start time in the record, in bytes.
const LENGTH: usize = 12;

/// A process, by pid and start time. The descriptor leads to a file without a name that contains
/// both: it can be passed to another process, which a kqueue cannot.
#[derive(Debug)]
pub struct PidFd {
    process: Option<ProcessKey>,
    record: OwnedFd,
}

impl ProcessKey {
    /// A kqueue that becomes readable when the process ends.
    fn exit_queue(self) -> io::Result<OwnedFd> {
        let queue = Kqueue::new()?;
        let exit = KEvent::new(
            self.number()?.as_raw() as usize,
            EventFilter::EVFILT_PROC,
            EvFlags::EV_ADD,
            FilterFlag::NOTE_EXIT,
            0,
            0,
        );
        queue.kevent(&[exit], &mut [], None)?;
        // Compared after the registration: the next process with this pid is not watched by
        // mistake.
        self.now().map(|_| queue.into()).ok_or_else(gone)
    }

    fn number(self) -> io::Result<Pid> {
        // 0 and negative numbers would mean whole groups.
        i32::try_from(self.pid)
            .ok()
            .filter(|pid| *pid > 0)
            .map(Pid::from_raw)
            .ok_or_else(gone)
    }
}

impl PidFd {
    /// As the twin.
    ///
    /// # Errors
    /// ESRCH when there is no such process; any error of making a file.
    pub fn open(pid: u32) -> io::Result<Self> {
        let process = ProcessKey::read(pid).ok_or_else(gone)?;
        let start_time = process.start_time.to_ne_bytes();
        let record = tempfile::tempfile()?;
        record.write_all_at(&[pid.to_ne_bytes().as_slice(), &start_time].concat(), 0)?;
        Ok(Self {
            process: Some(process),
            record: record.into(),
        })
    }

    /// Here the kernel tells the pid only.
    pub fn of_peer(_: &impl AsFd) -> nix::Result<Self> {
        Err(nix::errno::Errno::ENOPROTOOPT)
    }

    /// As the twin.
    pub fn has_ended(&self) -> bool {
        !self.process.is_some_and(ProcessKey::lives)
    }

    /// # Errors
    /// ESRCH when it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let process = self.process.ok_or_else(gone)?;
        process.now().ok_or_else(gone)?;
        Ok(kill(process.number()?, signal)?)
    }

    /// Sends a signal to the process's group.
    ///
    /// # Errors
    /// ESRCH when the process or the group is gone.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        let process = self.process.ok_or_else(gone)?;
        let group = process.now().ok_or_else(gone)?.group;
        // Groups 0 and 1 are the caller's own, and the machine's.
        let group = i32::try_from(group)
            .ok()
            .filter(|group| *group > 1)
            .ok_or_else(gone)?;
        Ok(killpg(Pid::from_raw(group), signal)?)
    }

    /// The end of the process; as a zombie, it has ended.
    pub fn ended(&self) -> Ended {
        let watched = match self.process {
            Some(process) => process.exit_queue(),
            None => Err(gone()),
        };
        let process = self.process;
        Ended::of(watched, move || !process.is_some_and(ProcessKey::lives))
    }
}

/// Here the kernel tells only the parent.
pub(super) fn exit_status(_: &PidFd) -> io::Result<Option<std::process::ExitStatus>> {
    Err(io::ErrorKind::Unsupported.into())
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}

/// A descriptor that another process opened. One that leads to no such record refers to no process.
impl From<OwnedFd> for PidFd {
    fn from(record: OwnedFd) -> Self {
        let file = File::from(record);
        let (mut pid, mut start_time) = ([0; 4], [0; LENGTH - 4]);
        let read = file
            .read_exact_at(&mut pid, 0)
            .and_then(|()| file.read_exact_at(&mut start_time, 4));
        let identity = ProcessKey {
            pid: u32::from_ne_bytes(pid),
            start_time: u64::from_ne_bytes(start_time),
        };
        Self {
            process: read.ok().map(|()| identity),
            record: file.into(),
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.record.as_fd()
    }
}
