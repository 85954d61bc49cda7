//! How a process ended, as systemd names it.

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It exited by itself.
    Exited,
    /// A signal ended it.
    Killed,
    /// A signal ended it, and it left a core dump.
    Dumped,
}

impl ProcessEnd {
    /// From EXIT_CODE= of a journal line.
    pub fn of_word(word: &str) -> Option<Self> {
        match word {
            "exited" => Some(Self::Exited),
            "killed" => Some(Self::Killed),
            "dumped" => Some(Self::Dumped),
            _ => None,
        }
    }

    /// From ExecMainCode of a unit, which is the si_code of siginfo: CLD_EXITED (1), CLD_KILLED (2)
    /// or CLD_DUMPED (3); 0 when it is not known.
    pub fn of_si_code(code: u64) -> Option<Self> {
        match code {
            0 => None,
            1 => Some(Self::Exited),
            3 => Some(Self::Dumped),
            _ => Some(Self::Killed),
        }
    }
}
