//! Whether a start that prints gets on: a server whose workers fail prints the same lines for each of
//! them, for ever.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// How many lines are known again: more than a loop of failing workers prints in one round.
const KNOWN: usize = 2048;

/// What the start of a sidecar has printed. A line counts as new when none like it was printed
/// before. A line that differs from an earlier one only in its numbers may be a count that grows, or
/// an old message with another process id or time; where most lines are the same word for word, it
/// is the latter.
#[derive(Debug, Default)]
pub struct Repetition {
    hasher: RandomState,
    /// Lines word for word, and without their numbers.
    known: HashSet<u64>,
    /// The same, the oldest first.
    order: VecDeque<u64>,
    /// Lines that were printed before, word for word.
    same: u64,
    /// Lines that were printed before with other numbers.
    renumbered: u64,
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
        let exact = self.note(b'=', line);
        let alike = self.note(b'~', &numberless);
        match (exact, alike, whole) {
            (true, true, _) => true,
            (false, _, whole) => {
                self.same += u64::from(whole);
                false
            }
            (true, false, whole) => {
                self.renumbered += u64::from(whole);
                self.renumbered > self.same
            }
        }
    }

    /// Keeps a text in mind; false when it was known.
    fn note(&mut self, kind: u8, text: &[u8]) -> bool {
        let hash = self.hasher.hash_one((kind, text));
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
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
        assert!(rounds[2..].iter().all(|round| !round.contains(&true)));
    }

    #[test]
    fn a_count_that_grows_is_progress() {
        let count = (1..5000).map(|done| format!("migrated {done} of 5000"));
        assert!(progress(count).iter().all(|new| *new));
        let dots = (1..100).map(|count| ".".repeat(count));
        assert!(progress(dots).iter().all(|new| *new));
    }

    #[test]
    fn old_lines_are_forgotten() {
        let mut lines: Vec<String> = (0..KNOWN as u64)
            .map(|n| format!("{n:064b}").replace('0', "a").replace('1', "b"))
            .collect();
        lines.push(lines[0].clone());
        let seen = progress(lines);
        assert!(seen.iter().all(|new| *new));
    }
}
