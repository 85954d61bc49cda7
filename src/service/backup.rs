//! What `install --overwrite` wrote over: kept beside it, with its bits and its owner, and put back by `uninstall`.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::state::atomic;

/// The ending of a file that somebody else had written. Neither systemd nor the gateway reads a file with such a name.
const FOREIGN: &str = ".before-gatewayctl";

/// The ending of a file of ours with somebody's changes.
const EDITED: &str = ".edited";

/// So many are looked for; who overwrites foreign files more often than this loses nothing, but is refused.
const MOST: u32 = 100;

/// Keeps a file under a name that is free; where.
///
/// # Errors
/// What the file system says; nothing is lost then.
pub(super) fn keep(path: &Path, edited: bool) -> io::Result<PathBuf> {
    let ending = if edited { EDITED } else { FOREIGN };
    let free = names(path, ending).find(|name| name.symlink_metadata().is_err());
    let name = free.ok_or_else(|| io::Error::other(format!("there are {MOST} of {}{ending} already", path.display())))?;
    copy(path, &name)?;
    Ok(name)
}

/// The newest of a foreign file's copies, if there is one.
pub(super) fn of(path: &Path) -> Option<PathBuf> {
    names(path, FOREIGN).take_while(|name| name.symlink_metadata().is_ok()).last()
}

/// All copies of a file that stay where they are when [`of`] is put back.
pub(super) fn others(path: &Path) -> Vec<PathBuf> {
    let newest = of(path);
    let all = names(path, FOREIGN).chain(names(path, EDITED));
    all.filter(|name| name.symlink_metadata().is_ok() && Some(name) != newest.as_ref()).collect()
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

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::metadata(from)?;
    let bytes = fs::read(from)?;
    let owner = nix::unistd::geteuid().is_root().then(|| (meta.uid(), meta.gid()));
    atomic::write_for(to, &bytes, meta.permissions().mode() & 0o7777, owner)
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
        assert_eq!(others, ["gateway.service.before-gatewayctl", "gateway.service.edited"].map(|name| dir.path().join(name)));
        put_back(&newest, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(of(&path).unwrap(), others[0]);
    }
}
