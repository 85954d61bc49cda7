//! The line of /proc/PID/stat (proc(5)).

/// A process in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its name, 15 bytes at most; whatever it chose to call itself.
    pub name: String,
    /// `Z` for a zombie, `X` for one that is just going; field 3.
    pub state: char,
    /// Its parent; 0 where that is outside of this pid namespace. Field 4.
    pub parent: u32,
    /// Its process group; field 5.
    pub group: u32,
    /// When it began, in clock ticks since boot: with the pid it names the process for good. Field 22.
    pub start_time: u64,
}

impl Stat {
    /// Reads it; none when there is no such process, or it is hidden.
    pub fn read(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let line = String::from_utf8_lossy(line);
        // The name stands in parentheses and may hold anything, parentheses too: count from the last one.
        let (head, tail) = line.rsplit_once(')')?;
        let mut fields = tail.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { name: head.split_once('(')?.1.to_owned(), state, parent, group, start_time: fields.nth(16)?.parse().ok()? })
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
    fn a_name_may_hold_anything() {
        let line = b"42 (a) Z (b) S 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0 18446744073709551615";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.name.as_str(), stat.state, stat.parent, stat.group, stat.start_time), ("a) Z (b", 'S', 7, 42, 1234));
        assert!(Stat::parse(b"42 (a) S 7").is_none());
        assert_eq!(Stat::read(std::process::id()).unwrap().parent, nix::unistd::getppid().as_raw() as u32);
    }
}
