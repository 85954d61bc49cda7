//! What identifies a process for as long as the machine runs.

use super::Stat;

/// A process, by pid and start time. Two processes with one pid do not begin in the same tick of the
/// clock: all other pids are given in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessKey {
    pub pid: u32,
    pub start_time: u64,
}

impl ProcessKey {
    /// The process that has this pid now; none when there is none, or it is hidden.
    pub fn read(pid: u32) -> Option<Self> {
        let start_time = Stat::read(pid)?.start_time;
        Some(Self { pid, start_time })
    }

    /// None when the process is gone, even if another process has its pid. A zombie is not gone.
    pub fn now(self) -> Option<Stat> {
        Stat::read(self.pid).filter(|stat| stat.start_time == self.start_time)
    }

    /// Whether it runs still.
    pub fn lives(self) -> bool {
        self.now().is_some_and(|stat| !stat.is_dead())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_with_the_same_pid_is_another_process() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let key = ProcessKey::read(child.id()).unwrap();
        assert!(key.lives());
        let earlier = ProcessKey {
            start_time: key.start_time - 1,
            ..key
        };
        assert!(!earlier.lives());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!key.lives());
    }
}
