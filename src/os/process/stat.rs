//! A process in numbers.

use super::kernel;

/// What the kernel tells of a process, whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its name, 15 bytes at most; whatever it chose to call itself.
    pub name: String,
    /// `Z` for a zombie, `X` for one that is just going; field 3 of /proc/PID/stat (proc(5)).
    pub state: char,
    /// Its parent; 0 where that is outside of this pid namespace. Field 4.
    pub parent: u32,
    /// Its process group; field 5.
    pub group: u32,
    /// When it began, in clock ticks since boot (field 22), on macOS in microseconds since 1970:
    /// with the pid it names the process for good.
    pub start_time: u64,
}

impl Stat {
    /// Reads it; none when there is no such process, or it is hidden.
    pub fn read(pid: u32) -> Option<Self> {
        kernel::stat(pid)
    }

    /// Whether it has ended and only waits to be reaped.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_has_a_parent() {
        assert_eq!(
            Stat::read(std::process::id()).unwrap().parent,
            nix::unistd::getppid().as_raw() as u32
        );
    }
}
