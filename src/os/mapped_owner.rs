//! Whose a directory is, where systemd shows it to the service as another's than it is on disk.
//!
//! A service with `DynamicUser=` has its directories below `/run/private` and `/var/lib/private`, where
//! only root gets in. Since systemd 257, on a kernel that can do it, they belong to the user "nobody", and
//! a mapped mount shows them to the service as its own.

use std::fs::Metadata;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where systemd keeps the directories of temporary users.
const PRIVATE: [&str; 4] = [
    "/run/private",
    "/var/lib/private",
    "/var/cache/private",
    "/var/log/private",
];

/// To whom systemd gives a directory that it maps.
const NOBODY: u32 = 65_534;

/// The numbers of temporary users (systemd's `UIDS-GIDS.md`).
pub const TEMPORARY: RangeInclusive<u32> = 61_184..=65_519;

/// Whether a user may write to a directory as its owner.
///
/// Only the service to which systemd shows a mapped directory gets into it, so whoever is a temporary
/// user and did something there is its user.
pub fn is_owner(directory: &Path, uid: u32) -> bool {
    std::fs::metadata(directory).is_ok_and(|facts| is_owner_by(directory, &facts, uid))
}

/// The same with what was read of the directory.
pub fn is_owner_by(directory: &Path, facts: &Metadata, uid: u32) -> bool {
    facts.uid() == uid || (TEMPORARY.contains(&uid) && is_mapped(directory, facts))
}

/// Whether systemd shows a directory to its service as another user's: its owner here says nothing.
pub fn is_mapped(directory: &Path, facts: &Metadata) -> bool {
    facts.uid() == NOBODY
        && std::fs::canonicalize(directory).is_ok_and(|real| {
            let mut above = PRIVATE.iter().map(Path::new);
            above.any(|place| real.starts_with(place) && is_closed(place))
        })
}

/// Root's, and nobody else gets in.
fn is_closed(place: &Path) -> bool {
    std::fs::symlink_metadata(place)
        .is_ok_and(|facts| facts.is_dir() && facts.uid() == 0 && facts.mode() & 0o077 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_nobodys_is_mapped_only_where_systemd_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let (path, me) = (dir.path(), nix::unistd::geteuid().as_raw());
        assert!(is_owner(path, me));
        if me == 0 {
            std::os::unix::fs::chown(path, Some(NOBODY), None).unwrap();
            assert!(is_owner(path, NOBODY) && !is_owner(path, 61_184));
        }
        assert!(!is_owner(path, 65_000));
    }

    #[test]
    fn a_place_that_others_get_into_is_not_closed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        for (mode, closed) in [(0o700, true), (0o711, false), (0o750, false)] {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            let root = nix::unistd::geteuid().is_root();
            assert_eq!(is_closed(dir.path()), closed && root, "{mode:o}");
        }
    }
}
