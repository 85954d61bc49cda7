//! What a user may do with a path, as the kernel itself decides it: mode bits, access control lists,
//! network file systems. A thread of its own takes that user's identity for the file system, asks, and
//! ends.

use std::io;
use std::path::{Path, PathBuf};

use super::credentials::Credentials;
use super::file_identity;
pub use super::file_identity::Access;

/// The first part of a path that a user does not get past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    pub path: PathBuf,
    /// What the user may not do with it.
    pub access: Access,
}

/// A path, and the parts of it that must be entered on the way, from the root on.
struct PathParts<'a> {
    path: &'a Path,
    /// By which name each part was reached, and where that leads.
    parts: Vec<(&'a Path, Option<PathBuf>)>,
}

impl<'a> PathParts<'a> {
    fn of(path: &'a Path) -> Self {
        let mut parts: Vec<_> = path
            .ancestors()
            .map(|part| (part, part.canonicalize().ok()))
            .collect();
        parts.reverse();
        Self { path, parts }
    }

    /// Where this thread does not get past.
    fn barrier(&self, access: Access) -> Option<Barrier> {
        let on_the_way = |part: &Path| match part == self.path {
            true => access,
            false => Access::Enter,
        };
        let (part, real) = (self.parts.iter()).find(|(part, _)| denied(part, on_the_way(part)))?;
        // A link may lead to where something above the target is in the way.
        let above = real.as_deref().into_iter().flat_map(|real| {
            let mut above: Vec<_> = real.ancestors().skip(1).collect();
            above.reverse();
            above
        });
        let entered = (above.into_iter()).find(|part| denied(part, Access::Enter));
        Some(match entered {
            Some(part) => Barrier {
                path: part.to_owned(),
                access: Access::Enter,
            },
            None => Barrier {
                path: real.clone().unwrap_or_else(|| part.to_path_buf()),
                access: on_the_way(part),
            },
        })
    }
}

/// Whether this thread may not do that; what is not there is denied to nobody.
fn denied(path: &Path, access: Access) -> bool {
    let asked = file_identity::may(path, access);
    asked.is_err_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        )
    })
}

/// Where a process with these credentials does not get past on its way to `path`; `capable` says
/// whether it keeps the capabilities that its user has. None where nothing is in the way.
///
/// # Errors
/// When this process may not take another identity.
pub fn barrier(
    user: &Credentials,
    capable: bool,
    path: &Path,
    access: Access,
) -> io::Result<Option<Barrier>> {
    // With the rights of this process: that user may not be able to look.
    let way = PathParts::of(path);
    let own = user.uid == nix::unistd::geteuid();
    if own && (capable || !user.uid.is_root()) {
        return Ok(way.barrier(access));
    }
    let ask = || {
        if !own {
            file_identity::take(user)?;
        }
        file_identity::drop_capabilities()?;
        Ok(way.barrier(access))
    };
    std::thread::scope(|scope| {
        let asked = scope.spawn(ask).join();
        asked.unwrap_or_else(|_| Err(io::Error::other("the thread that asked has died")))
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use nix::unistd::{Gid, Uid, geteuid};

    use super::*;

    fn user(uid: u32, groups: &[u32]) -> Credentials {
        Credentials {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(uid),
            groups: groups.iter().copied().map(Gid::from_raw).collect(),
        }
    }

    #[test]
    fn the_first_part_that_is_in_the_way_is_named_whatever_link_leads_there() {
        if !geteuid().is_root() {
            return; // Nobody else may ask for others.
        }
        let top = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let top_path = top.path().canonicalize().unwrap();
        let (home, site) = (top_path.join("home"), top_path.join("home/site"));
        let (file, link) = (site.join("app.env"), top_path.join("link"));
        fs::create_dir_all(&site).unwrap();
        fs::write(&file, "").unwrap();
        symlink(&site, &link).unwrap();
        mode(&top_path, 0o755);
        mode(&home, 0o750);
        mode(&site, 0o755);
        mode(&file, 0o640);
        chown(&home, Some(54_321), Some(54_322)).unwrap();
        let seen = |user: &Credentials, path: &Path, access| {
            let barrier = barrier(user, true, path, access).unwrap();
            barrier.map(|barrier| (barrier.path, barrier.access))
        };
        let other = user(54_323, &[]);
        let expected = Some((home.clone(), Access::Enter));
        assert_eq!(seen(&other, &file, Access::Read), expected);
        assert_eq!(seen(&other, &link.join("app.env"), Access::Read), expected);
        assert_eq!(seen(&other, &link, Access::Enter), expected);
        let member = user(54_323, &[54_322]);
        assert_eq!(seen(&member, &link, Access::Enter), None);
        let expected = Some((file.clone(), Access::Read));
        assert_eq!(seen(&member, &link.join("app.env"), Access::Read), expected);
        let expected = Some((site.clone(), Access::Write));
        assert_eq!(seen(&member, &site, Access::Write), expected);
        assert_eq!(seen(&user(54_321, &[]), &home, Access::Write), None);
        assert_eq!(seen(&member, &site.join("gone"), Access::Read), None);
        // Root without capabilities is a user like any other.
        let root = user(0, &[]);
        assert_eq!(seen(&root, &file, Access::Read), None);
        mode(&home, 0o700);
        let without = barrier(&root, false, &file, Access::Read).unwrap();
        assert_eq!(without.map(|barrier| barrier.path), Some(home));
        assert!(geteuid().is_root(), "only a thread had another identity");
    }
}
