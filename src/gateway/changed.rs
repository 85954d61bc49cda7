//! Waits for a change of the configuration file.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};

use crate::os::mutex::lock;

/// The time between two looks. No event covers every case: the file may be replaced behind a
/// symbolic link or on a network file system, or appear in a directory that does not exist yet. A user
/// who saves the file waits no longer than this.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The version of a file that was seen last; none before the first look.
pub type SeenVersion = Mutex<Option<FileVersion>>;

/// Device, inode, modification time and size, which differ after a change; none without a file.
pub type FileVersion = Option<(u64, u64, (i64, i64), u64)>;

/// In a thread: the disk may not answer. An error means that there is none.
async fn version(path: &Path) -> Result<FileVersion, JoinError> {
    let path = path.to_owned();
    let look = move || {
        let file = std::fs::metadata(path).ok()?;
        let time = (file.mtime(), file.mtime_nsec());
        Some((file.dev(), file.ino(), time, file.size()))
    };
    spawn_blocking(look).await
}

/// Waits until the file at `path` changes, appears or disappears after it was `seen`. What is seen
/// stays known to the next wait: a change between two of them, while the file is read and what it
/// says is tried, is not missed.
pub async fn changed(path: &Path, seen: &SeenVersion) {
    let mut look = tokio::time::interval(LOOK_AGAIN);
    loop {
        look.tick().await;
        if let Ok(now) = version(path).await
            && lock(seen).replace(now).is_some_and(|before| before != now)
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_comes_is_written_is_replaced_or_goes_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let other = dir.path().join("other");
        std::fs::write(&other, "b = 1").unwrap();
        let steps: [&dyn Fn(); 4] = [
            &|| std::fs::write(&path, "a = 1").unwrap(),
            &|| std::fs::write(&path, "a = 12").unwrap(),
            &|| std::fs::rename(&other, &path).unwrap(),
            &|| std::fs::remove_file(&path).unwrap(),
        ];
        let seen = SeenVersion::default();
        for step in steps {
            let mut wait = std::pin::pin!(changed(&path, &seen));
            // Between two looks: one that is under way could see the file when it is half written.
            let early = tokio::time::timeout(4 * LOOK_AGAIN + LOOK_AGAIN / 2, &mut wait).await;
            assert!(early.is_err(), "nothing changed yet");
            step();
            let late = tokio::time::timeout(2 * LOOK_AGAIN, wait).await;
            late.expect("it has changed");
        }
        std::fs::write(&path, "while nobody waits").unwrap();
        let late = tokio::time::timeout(LOOK_AGAIN, changed(&path, &seen)).await;
        late.expect("it has changed since it was seen");
    }
}
