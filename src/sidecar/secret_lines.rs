//! The lines of a sidecar's output in which the log hides a secret, as they were printed: the one-time
//! token with which somebody must log in stands nowhere else. They are in memory only, and given to
//! root and the gateway's user.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::os::mutex::lock;

/// So many of the first lines are kept, which tell how to log in, and so many of the last: each
/// request to a server may be logged with a token in it.
const FIRST: usize = 16;
const LAST: usize = 16;

/// How much of a line is kept, in bytes.
const LINE_MAX: usize = 1000;

#[derive(Debug, Default)]
pub struct SecretLines(Mutex<KeptLines>);

#[derive(Debug, Default)]
struct KeptLines {
    first: Vec<String>,
    last: VecDeque<String>,
}

impl SecretLines {
    pub fn keep(&self, line: &str) {
        let mut end = line.len().min(LINE_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let line = line[..end].to_owned();
        let mut kept = lock(&self.0);
        if kept.first.len() < FIRST {
            return kept.first.push(line);
        }
        if kept.last.len() == LAST {
            kept.last.pop_front();
        }
        kept.last.push_back(line);
    }

    /// The oldest first.
    pub fn all(&self) -> Vec<String> {
        let kept = lock(&self.0);
        kept.first.iter().chain(&kept.last).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_lines_are_kept() {
        let lines = SecretLines::default();
        for number in 0..100 {
            lines.keep(&format!("token={number}"));
        }
        lines.keep(&"ü".repeat(LINE_MAX));
        let all = lines.all();
        assert_eq!(all.len(), FIRST + LAST);
        assert_eq!(all[..2], ["token=0", "token=1"]);
        assert_eq!(all[30], "token=99");
        assert_eq!(all[31].len(), LINE_MAX);
    }
}
