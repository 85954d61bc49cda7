//! A process in numbers.

/// What the kernel tells every user about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// 15 bytes at most. A process chooses its name itself.
    pub name: String,
    /// `Z` for a zombie, `X` for a process that is being removed, `T` for a stopped one, `t` for one
    /// that a debugger has stopped; field 3 of /proc/PID/stat
    /// (proc(5)).
    pub state: char,
    /// 0 where the parent is outside of this pid namespace. Field 4.
    pub parent: u32,
    /// The process group; field 5.
    pub group: u32,
    /// In clock ticks since boot (field 22), on macOS in microseconds since 1970. Pid and start
    /// time together identify a process.
    pub start_time: u64,
}

impl Stat {
    /// Whether the process has ended and waits to be reaped.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Whether a signal stopped it, as SIGSTOP and Ctrl-Z do: it does nothing until SIGCONT.
    pub fn is_stopped(&self) -> bool {
        self.state == 'T'
    }

    /// Whether somebody suspended it, by a signal or in a debugger: nothing is wrong with it, and it
    /// goes on where it was when they say so.
    pub fn is_suspended(&self) -> bool {
        self.state == 't' || self.is_stopped()
    }
}
