//! Whether a start that prints gets on: a server whose workers fail prints the same lines for each of
//! them, for ever.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// How many lines are known again: more than a loop of failing workers prints in one round.
const KNOWN: usize = 2048;

/// What the start of a sidecar has printed. A line counts as new when none like it was printed
/// before. A line that differs from an earlier one only in its numbers is a count that grows, or an
/// old message with another process id or time. A count follows itself ("3 of 500", "4 of 500"), and
/// most lines that are not new are such; where most come in turns, it is the latter.
#[derive(Debug, Default)]
pub struct Repetition {
    hasher: RandomState,
    /// Lines word for word.
    exact: KnownLines,
    /// Lines without their numbers.
    alike: KnownLines,
    /// Beginnings of lines without their numbers.
    begun: KnownLines,
    /// The line before, without its numbers.
    before: Option<u64>,
    /// Lines that were not new, and followed one that had only other numbers.
    counts: u64,
    /// The other lines that were not new.
    repeats: u64,
}

/// The last [`KNOWN`] lines, by their hashes.
#[derive(Debug, Default)]
struct KnownLines {
    set: HashSet<u64>,
    /// The oldest first.
    order: VecDeque<u64>,
}

impl KnownLines {
    /// Keeps a line in mind; false when it was known.
    fn note(&mut self, hash: u64) -> bool {
        if !self.set.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }
}

impl Repetition {
    /// Whether a line shows progress. One that is not `whole` is only the beginning of a line.
    pub fn is_new(&mut self, line: &[u8], whole: bool) -> bool {
        if line.trim_ascii().is_empty() {
            return false;
        }
        let numberless: Vec<u8> = line
            .iter()
            .filter(|byte| !byte.is_ascii_digit())
            .copied()
            .collect();
        let alike = self.hasher.hash_one(&numberless);
        if !whole {
            return self.begun.note(alike);
        }
        let new = self.exact.note(self.hasher.hash_one(line));
        let new_words = self.alike.note(alike);
        let before = self.before.replace(alike);
        if new && new_words {
            return true;
        }
        if new && before == Some(alike) {
            self.counts += 1;
            return self.counts > self.repeats;
        }
        self.repeats += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(lines: impl IntoIterator<Item = String>) -> Vec<bool> {
        let mut seen = Repetition::default();
        let is_new = |line: String| seen.is_new(line.as_bytes(), true);
        lines.into_iter().map(is_new).collect()
    }

    #[test]
    fn workers_that_fail_one_after_the_other_are_no_progress() {
        let round = |pid: usize| {
            [
                format!("INFO: Started server process [{pid}]"),
                "Traceback (most recent call last):".to_owned(),
                "  File \"/app/main.py\", line 3, in <module>".to_owned(),
                "    import nothing_there".to_owned(),
                "ModuleNotFoundError: No module named 'nothing_there'".to_owned(),
                format!("INFO: Child process [{pid}] died"),
                String::new(),
            ]
        };
        let lines = progress((1000..1100).flat_map(round));
        let rounds: Vec<&[bool]> = lines.chunks(7).collect();
        assert_eq!(rounds[0], [true, true, true, true, true, true, false]);
        assert!(rounds[1..].iter().all(|round| !round.contains(&true)));
        // puma: each line begins with the process id, and two workers fail at the same time.
        let round = |pid: usize| {
            [
                format!("[{pid}] ! Unable to start worker"),
                format!("[{pid}] config.ru:1:in `block in <main>'"),
                format!("[{pid}] Early termination of worker"),
                format!("[{}] Early termination of worker", pid + 1),
            ]
        };
        let lines = progress((1000..1100).map(|n| n * 2).flat_map(round));
        let rounds: Vec<&[bool]> = lines.chunks(4).collect();
        assert!(rounds[2..].iter().all(|round| !round.contains(&true)));
    }

    #[test]
    fn a_count_that_grows_is_progress() {
        let count = (1..5000).map(|done| format!("migrated {done} of 5000"));
        assert!(progress(count).iter().all(|new| *new));
        // Python without a buffer writes the end of each line by itself.
        let mut seen = Repetition::default();
        for done in 1..500 {
            let line = format!("migrated {done} of 5000");
            let begun = seen.is_new(line.as_bytes(), false);
            assert!(seen.is_new(line.as_bytes(), true) || begun, "{done}");
        }
        let dots = (1..100).map(|count| ".".repeat(count));
        assert!(progress(dots).iter().all(|new| *new));
    }

    #[test]
    fn old_lines_are_forgotten() {
        let mut lines: Vec<String> = (0..=KNOWN as u64)
            .map(|n| format!("{n:064b}").replace('0', "a").replace('1', "b"))
            .collect();
        lines.push(lines[0].clone());
        let seen = progress(lines);
        assert!(seen.iter().all(|new| *new));
    }
}
