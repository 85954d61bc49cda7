//! What `install --overwrite` wrote over: kept beside it, with its bits and its owner, and put back
//! by `uninstall`.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use crate::config::regular_file;
use crate::state::atomic_file;

/// The ending of a file that somebody else had written. Neither systemd nor the gateway reads a
/// file with such a name.
const FOREIGN: &str = ".before-gatewayctl";

/// The ending of a file of ours with somebody's changes.
const EDITED: &str = ".edited";

/// A longer file, in bytes, is not kept, and so not written over: no unit or configuration is as long.
const KEPT_MAX: u64 = 16 * 1024 * 1024;

/// So many are looked for; who overwrites foreign files more often than this loses nothing, but is
/// refused.
const MOST: u32 = 100;

/// The bits that no file gets back: who may write a unit or a configuration can run programs as its
/// user.
const WRITE_BY_OTHERS: u32 = 0o022;

/// Keeps a file under a name that is free; where.
///
/// # Errors
/// What the file system says; nothing is lost then.
pub(super) fn keep(path: &Path, edited: bool) -> io::Result<PathBuf> {
    let ending = if edited { EDITED } else { FOREIGN };
    let free = names(path, ending).find(|name| name.symlink_metadata().is_err());
    let name = free.ok_or_else(|| {
        io::Error::other(format!(
            "there are {MOST} of {}{ending} already",
            path.display()
        ))
    })?;
    Original::of(path)?.write(&name)?;
    Ok(name)
}

/// The newest of a foreign file's copies, if there is one.
pub(super) fn of(path: &Path) -> Option<PathBuf> {
    names(path, FOREIGN)
        .take_while(|name| name.symlink_metadata().is_ok())
        .last()
}

/// All copies of a file that stay where they are when [`of`] is put back.
pub(super) fn others(path: &Path) -> Vec<PathBuf> {
    let newest = of(path);
    let all = names(path, FOREIGN).chain(names(path, EDITED));
    all.filter(|name| name.symlink_metadata().is_ok() && Some(name) != newest.as_ref())
        .collect()
}

/// Puts a copy back in its place, which must be free by now.
///
/// # Errors
/// What the file system says; the copy is still there then.
pub(super) fn put_back(copy: &Path, path: &Path) -> io::Result<()> {
    fs::rename(copy, path)
}

fn names(path: &Path, ending: &str) -> impl Iterator<Item = PathBuf> {
    (0..MOST).map(move |number| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name.into()
    })
}

/// What somebody else put somewhere, to be put there again or beside it.
#[derive(Debug)]
pub(super) struct Original {
    what: OriginalContent,
    owner: (u32, u32),
}

#[derive(Debug)]
enum OriginalContent {
    /// Its bytes and bits.
    File(Vec<u8>, u32),
    /// Where it leads; what is there is none of ours.
    Link(PathBuf),
}

impl Original {
    /// Looks at a file or a link.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = path.symlink_metadata()?;
        let what = if meta.is_symlink() {
            OriginalContent::Link(fs::read_link(path)?)
        } else {
            OriginalContent::File(
                regular_file::read(path, KEPT_MAX)?,
                meta.permissions().mode() & 0o7777 & !WRITE_BY_OTHERS,
            )
        };
        Ok(Self {
            what,
            owner: (meta.uid(), meta.gid()),
        })
    }

    /// Puts the same at a path, in the place of what is there.
    ///
    /// # Errors
    /// What the file system says; what was there is still there then.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        // Others cannot give files away, and their files were their own.
        let owner = nix::unistd::geteuid().is_root().then_some(self.owner);
        let target = match &self.what {
            OriginalContent::File(bytes, mode) => {
                return atomic_file::write_for(path, bytes, *mode, owner);
            }
            OriginalContent::Link(target) => target,
        };
        let dir = path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let link = tempfile::Builder::new()
            .prefix(".tmp-")
            .make_in(dir, |name| symlink(target, name))?;
        if let Some((uid, gid)) = owner {
            lchown(link.path(), Some(uid), Some(gid))?;
        }
        link.persist(path).map_err(|error| error.error)?;
        atomic_file::open_directory(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_copy_is_kept_and_the_newest_foreign_one_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.service");
        for (text, edited) in [("first", false), ("changed", true), ("second", false)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            keep(&path, edited).unwrap();
        }
        fs::remove_file(&path).unwrap();
        let newest = of(&path).unwrap();
        let others = others(&path);
        assert_eq!(
            others,
            [
                "gateway.service.before-gatewayctl",
                "gateway.service.edited"
            ]
            .map(|name| dir.path().join(name))
        );
        put_back(&newest, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(of(&path).unwrap(), others[0]);
    }

    #[test]
    fn a_link_is_kept_as_a_link_and_nothing_is_kept_writable_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.service");
        symlink("/dev/null", &path).unwrap();
        let copy = keep(&path, false).unwrap();
        assert_eq!(fs::read_link(&copy).unwrap(), Path::new("/dev/null"));
        fs::remove_file(&path).unwrap();
        put_back(&copy, &path).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/dev/null"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(
            fs::metadata(keep(&path, false).unwrap())
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o644
        );
    }
}
