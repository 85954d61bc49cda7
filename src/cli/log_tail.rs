//! The end of a log file, and what is printed to it afterwards. The file may lie in the directory of a less
//! privileged user: it is opened by the descriptor of that directory, never through a link, and what is read
//! at once is bounded. Whoever prints its lines escapes them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::time::sleep;

use crate::state::untrusted_file;

/// How much of the end of a file is looked at for lines, in bytes: enough for 100 lines of any length that
/// the log has. As much is read at once of what comes afterwards.
const AT_ONCE: u64 = 4 * 1024 * 1024;

/// Between two looks at a file that is followed: what a person reads need not come faster, and not every
/// system tells of a file that grows or is replaced.
const LOOK: Duration = Duration::from_millis(250);

/// A log file that is read from near its end.
#[derive(Debug)]
pub struct LogTail {
    path: PathBuf,
    file: File,
    /// In front of the lines that are wanted.
    prefix: String,
    /// The beginning of a line whose end is not written yet.
    part: Vec<u8>,
}

impl LogTail {
    /// Opens a log, for the lines of one sidecar where one is named.
    ///
    /// # Errors
    /// `InvalidData` for what is no regular file of this user or of the owner of its directory.
    pub fn open(path: &Path, sidecar: Option<&str>) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: untrusted_file::open(path, OFlag::O_RDONLY)?,
            prefix: sidecar.map_or_else(String::new, |name| format!("[{name}] ")),
            part: Vec::new(),
        })
    }

    /// The last lines of it, and where `is_whole`, one that is not ended, too.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last(&mut self, count: usize, is_whole: bool) -> io::Result<Vec<String>> {
        let length = self.file.metadata()?.len();
        let begin = length.saturating_sub(AT_ONCE);
        self.file.seek(SeekFrom::Start(begin))?;
        self.part.clear();
        let mut lines = self.read()?;
        if begin > 0 && !lines.is_empty() {
            // It is only the end of a line.
            lines.remove(0);
        }
        if is_whole && !self.part.is_empty() {
            lines.push(std::mem::take(&mut self.part));
        }
        let mut lines = self.wanted(&lines);
        let more = lines.len().saturating_sub(count);
        Ok(lines.split_off(more))
    }

    /// Waits for further lines. A file that takes the place of this one, or that is cut, is read from its
    /// beginning.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn next(&mut self) -> io::Result<Vec<String>> {
        loop {
            let mut lines = self.read()?;
            if lines.is_empty() && self.file.stream_position()? > self.file.metadata()?.len() {
                self.file.seek(SeekFrom::Start(0))?;
                self.part.clear();
                continue;
            }
            if lines.is_empty() {
                match self.successor()? {
                    None => sleep(LOOK).await,
                    Some(next) => {
                        // What was printed to the old one until it was moved.
                        lines = self.read()?;
                        self.file = next;
                        self.part.clear();
                    }
                }
            }
            let lines = self.wanted(&lines);
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    /// The file that lies in the place of this one, where it is another one.
    fn successor(&self) -> io::Result<Option<File>> {
        // It may be about to be made, and what must not be opened is none.
        let Ok(there) = untrusted_file::open(&self.path, OFlag::O_RDONLY) else {
            return Ok(None);
        };
        let (now, before) = (there.metadata()?, self.file.metadata()?);
        let is_other = (now.dev(), now.ino()) != (before.dev(), before.ino());
        Ok(is_other.then_some(there))
    }

    /// The lines from here on that are ended. One that is longer than what is read at once counts as ended.
    fn read(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut bytes = std::mem::take(&mut self.part);
        (&self.file).take(AT_ONCE).read_to_end(&mut bytes)?;
        let mut lines: Vec<Vec<u8>> = bytes
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        if let Some(part) = lines.pop() {
            match part.len() as u64 >= AT_ONCE {
                true => lines.push(part),
                false => self.part = part,
            }
        }
        Ok(lines)
    }

    fn wanted(&self, lines: &[Vec<u8>]) -> Vec<String> {
        let lines = lines.iter().map(|line| String::from_utf8_lossy(line));
        let wanted = lines.filter(|line| line.starts_with(&self.prefix));
        wanted
            .map(|line| line.trim_end_matches('\r').to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn texts(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[tokio::test]
    async fn what_is_written_afterwards_follows_through_a_cut_and_a_move() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "one\n[web] two\n[web] thr").unwrap();
        let mut log = LogTail::open(&path, None).unwrap();
        assert_eq!(log.last(1, false).unwrap(), ["[web] two"]);
        assert_eq!(
            log.last(9, true).unwrap(),
            texts(&["one", "[web] two", "[web] thr"])
        );
        let mut only = LogTail::open(&path, Some("web")).unwrap();
        assert_eq!(only.last(9, false).unwrap(), ["[web] two"]);

        let mut writer = File::options().append(true).open(&path).unwrap();
        writer.write_all(b"ee\nfour\n").unwrap();
        assert_eq!(only.next().await.unwrap(), ["[web] three"]);
        writer.set_len(0).unwrap();
        writer.write_all(b"[web] a\n").unwrap();
        assert_eq!(only.next().await.unwrap(), ["[web] a"], "it was cut");
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        writer.write_all(b"[web] last\n").unwrap();
        std::fs::write(&path, "[web] first\n").unwrap();
        assert_eq!(only.next().await.unwrap(), ["[web] last"]);
        assert_eq!(only.next().await.unwrap(), ["[web] first"], "it was moved");
    }

    #[test]
    fn only_the_end_of_a_long_file_is_read_and_a_line_has_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"first\n").unwrap();
        file.set_len(3 * AT_ONCE).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"\nlast\n").unwrap();
        let mut log = LogTail::open(&path, None).unwrap();
        assert_eq!(log.last(100, true).unwrap(), ["last"]);
        log.file.seek(SeekFrom::Start(6)).unwrap();
        let lines = log.read().unwrap();
        assert_eq!(lines[0].len() as u64, AT_ONCE);
        assert!(log.part.is_empty());
    }
}
