//! Waiting for a path to appear or go, by inotify on its folder.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe;

/// An inotify event with the longest name (inotify(7)).
const EVENT_MAX: usize = 16 + 256;

/// Tells when something changes in the folders of some paths, or in what exists of the way to them.
pub struct Watch {
    // An inotify descriptor is waited for and read like the end of a pipe.
    events: pipe::Receiver,
}

impl Watch {
    /// Watches the folders of `paths`; of a folder that is not there, the nearest one above it that is.
    ///
    /// Look at the paths after this and before [`Watch::changed`]: what changed in between is then not missed.
    ///
    /// # Errors
    /// When the system has no inotify left (fs.inotify.max_user_instances).
    pub fn new(paths: &[PathBuf]) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let what = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF;
        for folder in paths.iter().filter_map(|path| nearest(path)) {
            inotify.add_watch(folder, what)?;
        }
        Ok(Self { events: pipe::Receiver::from_file_unchecked(File::from(OwnedFd::from(inotify)))? })
    }

    /// Returns when something changed.
    ///
    /// # Errors
    /// When the runtime is ending.
    pub async fn changed(&self) -> io::Result<()> {
        let mut event = [0; EVENT_MAX];
        loop {
            self.events.readable().await?;
            match self.events.try_read(&mut event) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
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
