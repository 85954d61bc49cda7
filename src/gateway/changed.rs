//! Whether the configuration file is another one than before.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Between two looks. Nothing tells in every case: a file may be replaced behind a symbolic link,
/// on a file system of the network, or come to be in a folder that does not exist yet. Somebody who
/// just saved it waits for no longer than this.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What tells one state of a file from another; none where there is no file.
type FileState = Option<(u64, u64, i64, i64, u64)>;

fn state(path: &Path) -> FileState {
    let file = std::fs::metadata(path).ok()?;
    Some((
        file.dev(),
        file.ino(),
        file.mtime(),
        file.mtime_nsec(),
        file.size(),
    ))
}

/// Waits until the file at `path` changes, comes or goes, counted from the call.
pub async fn changed(path: &Path) {
    changed_every(path, LOOK_AGAIN).await;
}

async fn changed_every(path: &Path, again: Duration) {
    let before = state(path);
    let mut look = tokio::time::interval(again);
    loop {
        look.tick().await;
        if state(path) != before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
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
        for step in steps {
            let watched = path.clone();
            let wait = async move { changed_every(&watched, Duration::from_millis(5)).await };
            tokio::pin!(wait);
            assert!(
                tokio::time::timeout(Duration::from_millis(20), &mut wait)
                    .await
                    .is_err(),
                "nothing changed yet"
            );
            step();
            tokio::time::timeout(Duration::from_secs(10), wait)
                .await
                .unwrap();
        }
    }
}
