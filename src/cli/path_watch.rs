//! Waiting for a path to appear or go, by a watch on its folder.

use std::io;
use std::path::{Path, PathBuf};

use crate::os::platform::Watcher;

/// Tells when something changes in the folders of some paths, or in what exists of the way to them.
pub struct Watch(Watcher);

impl Watch {
    /// Watches the folders of `paths`; of a folder that is not there, the nearest one above it that
    /// is.
    ///
    /// Look at the paths after this and before [`Watch::changed`]: what changed in between is then
    /// not missed.
    ///
    /// # Errors
    /// When the system has no watches left (on Linux: fs.inotify.max_user_instances).
    pub fn new(paths: &[PathBuf]) -> io::Result<Self> {
        Watcher::new(paths.iter().filter_map(|path| nearest(path))).map(Self)
    }

    /// Returns when something changed.
    ///
    /// # Errors
    /// When the runtime is ending.
    pub async fn changed(&self) -> io::Result<()> {
        self.0.changed().await
    }
}

fn nearest(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_whose_folder_is_not_there_yet_is_seen_step_by_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/socket");
        let maker = path.clone();
        let making = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(maker.parent().unwrap()).unwrap();
            std::fs::write(maker, "").unwrap();
        });
        loop {
            let watch = Watch::new(std::slice::from_ref(&path)).unwrap();
            if path.exists() {
                break;
            }
            watch.changed().await.unwrap();
        }
        making.await.unwrap();
    }
}
