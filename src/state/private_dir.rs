//! Directories that are ours alone: made with mode 0700, and used only where no other user can
//! write into them, or put another directory in their place.
//!
//! Whoever may write in a directory above may rename what is below, so every directory on the way
//! is looked at, as sshd(8) does with the way to a user's keys. A sticky directory as `/tmp` is
//! passed through: there only the owner of an entry may rename it, but anybody may have made it
//! before us.

use std::ffi::OsString;
use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, Gid, Group, Uid, User};

/// As many links on the way as the kernel follows.
const LINKS_MAX: usize = 40;

const STICKY: u32 = 0o1000;
const WRITE_BY_GROUP: u32 = 0o020;
const WRITE_BY_ALL: u32 = 0o002;

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum NotPrivate {
    #[error("{} belongs to another user (uid {uid})", .at.display())]
    Foreign { at: PathBuf, uid: u32 },
    #[error("other users may write in {} (mode {mode:04o})", .at.display())]
    Shared { at: PathBuf, mode: u32 },
    #[error("{} is a symbolic link, and may lead elsewhere tomorrow", .0.display())]
    Link(PathBuf),
    #[error("{} is not a directory", .0.display())]
    NotDirectory(PathBuf),
    #[error("{error} ({})", .at.display())]
    Io { at: PathBuf, error: io::Error },
}

impl NotPrivate {
    /// The directory whose mode, if it were narrower, would be in nobody's way: it is ours, and is
    /// not there for everybody.
    pub fn to_narrow(&self) -> Option<&Path> {
        match self {
            Self::Shared { at, mode } if mode & STICKY == 0 => {
                let owner = std::fs::symlink_metadata(at).ok()?.uid();
                (owner == nix::unistd::geteuid().as_raw()).then_some(at)
            }
            _ => None,
        }
    }
}

impl From<NotPrivate> for io::Error {
    fn from(why: NotPrivate) -> Self {
        match why {
            NotPrivate::Io { error, .. } => error,
            why => Self::new(io::ErrorKind::PermissionDenied, why),
        }
    }
}

/// Makes the directory and those above it where there are none, with mode 0700. What is there is
/// left as it is.
///
/// # Errors
/// When another user could write into it or replace it.
pub fn make(path: &Path) -> Result<(), NotPrivate> {
    Walk::begin(path)?.finish(Missing::Make).map(drop)
}

/// Whether [`make`] would succeed.
pub fn can_be_made(path: &Path) -> bool {
    let last = Walk::begin(path).and_then(|walk| walk.finish(Missing::Stop));
    let all = AccessFlags::W_OK | AccessFlags::X_OK;
    last.is_ok_and(|dir| {
        nix::unistd::faccessat(nix::fcntl::AT_FDCWD, &dir, all, AtFlags::AT_EACCESS).is_ok()
    })
}

/// What becomes of a directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Make,
    Stop,
}

/// The way from `/` to a directory, each link read when it is met.
struct Walk {
    me: Uid,
    /// Who owns `/` can replace everything. In a user namespace it may be nobody.
    root: u32,
    /// The last directory that was found good, without links.
    at: PathBuf,
    /// The rest of the way, the next part last.
    left: Vec<OsString>,
    links: usize,
}

impl Walk {
    fn begin(path: &Path) -> Result<Self, NotPrivate> {
        let path = std::path::absolute(path).map_err(failed(path))?;
        let root = look(Path::new("/"))?.uid();
        let mut walk = Self {
            me: nix::unistd::geteuid(),
            root,
            at: PathBuf::from("/"),
            left: Vec::new(),
            links: 0,
        };
        walk.push(&path);
        Ok(walk)
    }

    fn push(&mut self, path: &Path) {
        for part in path.components().rev() {
            match part {
                Component::RootDir => self.at = PathBuf::from("/"),
                Component::CurDir | Component::Prefix(_) => {}
                Component::ParentDir | Component::Normal(_) => {
                    self.left.push(part.as_os_str().to_owned());
                }
            }
        }
    }

    /// The last directory that is there.
    fn finish(mut self, missing: Missing) -> Result<PathBuf, NotPrivate> {
        self.judge_passage(&self.at, &look(&self.at)?)?;
        while let Some(part) = self.left.pop() {
            if part == ".." {
                self.at.pop();
                continue;
            }
            let next = self.at.join(&part);
            let found = match look(&next) {
                Err(error) if !is_missing(&error) => return Err(error),
                Err(_) if missing == Missing::Stop => return Ok(self.at),
                Err(_) => {
                    mkdir(&next)?;
                    look(&next)?
                }
                Ok(found) => found,
            };
            if found.is_symlink() {
                self.follow(next, &found)?;
            } else {
                self.judge_passage(&next, &found)?;
                self.at = next;
            }
        }
        // Nothing of ours may lie where others can add to it, even if they cannot rename it.
        let found = look(&self.at)?;
        if self.is_shared(&found) {
            return Err(shared(&self.at, &found));
        }
        Ok(self.at)
    }

    /// Goes on where a link leads to. It may stand above the directory; in its place only where
    /// systemd made it, for the directory of a user who exists for one run (`DynamicUser=`).
    fn follow(&mut self, link: PathBuf, found: &Metadata) -> Result<(), NotPrivate> {
        let is_last = self.left.is_empty();
        let above = look(&self.at)?;
        let by_root = found.uid() == 0 && above.uid() == 0 && !self.me.is_root();
        if !self.is_trusted(found) || self.is_shared(&above) || (is_last && !by_root) {
            return Err(NotPrivate::Link(link));
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            let error = io::Error::from_raw_os_error(libc::ELOOP);
            return Err(NotPrivate::Io { at: link, error });
        }
        let target = std::fs::read_link(&link).map_err(failed(&link))?;
        self.push(&target);
        Ok(())
    }

    /// Whether what lies below a directory stays there.
    fn judge_passage(&self, at: &Path, found: &Metadata) -> Result<(), NotPrivate> {
        if !found.is_dir() {
            Err(NotPrivate::NotDirectory(at.to_owned()))
        } else if !self.is_trusted(found) {
            Err(NotPrivate::Foreign {
                at: at.to_owned(),
                uid: found.uid(),
            })
        } else if self.is_shared(found) && found.mode() & STICKY == 0 {
            Err(shared(at, found))
        } else {
            Ok(())
        }
    }

    fn is_trusted(&self, found: &Metadata) -> bool {
        [0, self.me.as_raw(), self.root].contains(&found.uid())
    }

    fn is_shared(&self, found: &Metadata) -> bool {
        found.mode() & WRITE_BY_ALL != 0
            || found.mode() & WRITE_BY_GROUP != 0 && !is_own_group(found.gid(), self.me)
    }
}

/// Whether no other user is in a group: root's, the group of our user alone, or one that this
/// machine has no name for, as the group of a volume in a container.
fn is_own_group(gid: u32, me: Uid) -> bool {
    if gid == 0 {
        return true;
    }
    match (Group::from_gid(Gid::from_raw(gid)), User::from_uid(me)) {
        (Ok(None), _) => true,
        (Ok(Some(group)), Ok(Some(user))) => {
            group.name == user.name && group.mem.iter().all(|member| *member == user.name)
        }
        _ => false,
    }
}

fn look(path: &Path) -> Result<Metadata, NotPrivate> {
    std::fs::symlink_metadata(path).map_err(failed(path))
}

fn mkdir(path: &Path) -> Result<(), NotPrivate> {
    match DirBuilder::new().mode(0o700).create(path) {
        // Somebody was faster; what it is will be looked at.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(failed(path)),
    }
}

fn is_missing(why: &NotPrivate) -> bool {
    matches!(why, NotPrivate::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
}

fn shared(at: &Path, found: &Metadata) -> NotPrivate {
    NotPrivate::Shared {
        at: at.to_owned(),
        mode: found.mode() & 0o7777,
    }
}

fn failed(at: &Path) -> impl FnOnce(io::Error) -> NotPrivate {
    let at = at.to_owned();
    move |error| NotPrivate::Io { at, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::atomic_file::mode;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn dir(path: &Path, mode: u32) -> PathBuf {
        std::fs::create_dir(path).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        path.to_owned()
    }

    #[test]
    fn what_is_missing_is_made_for_us_alone_and_what_is_there_keeps_its_mode() {
        let top = tempfile::tempdir().unwrap();
        let own = dir(&top.path().join("own"), 0o755);
        let state = own.join("a/../b/c");
        assert!(can_be_made(&state) && !own.join("a").exists());
        make(&state).unwrap();
        make(&state).unwrap();
        assert_eq!((mode(&own), mode(&own.join("b/c"))), (0o755, 0o700));
    }

    #[test]
    fn a_directory_where_others_may_write_is_refused_and_passed_through_only_when_sticky() {
        let top = tempfile::tempdir().unwrap();
        let sticky = dir(&top.path().join("sticky"), 0o1777);
        let open = dir(&top.path().join("open"), 0o777);
        for (path, fault) in [(&sticky, &sticky), (&open, &open), (&open.join("x"), &open)] {
            let why = make(path).unwrap_err();
            assert!(
                matches!(&why, NotPrivate::Shared { at, .. } if at == fault),
                "{why}"
            );
            assert_eq!(why.to_narrow(), (fault == &open).then_some(open.as_path()));
            assert!(!can_be_made(path));
        }
        assert!(!open.join("x").exists());
        assert_eq!((mode(&sticky), mode(&open)), (0o777, 0o777));
        make(&sticky.join("x")).unwrap();
    }

    #[test]
    fn a_link_is_followed_above_but_not_in_its_place_nor_where_others_may_plant_it() {
        let top = tempfile::tempdir().unwrap();
        let real = dir(&top.path().join("real"), 0o700);
        let sticky = dir(&top.path().join("sticky"), 0o1777);
        let (link, planted) = (top.path().join("link"), sticky.join("link"));
        symlink(&real, &link).unwrap();
        symlink(&real, &planted).unwrap();
        for path in [&link, &planted, &planted.join("x")] {
            let why = make(path).unwrap_err();
            assert!(matches!(why, NotPrivate::Link(_)), "{why}");
        }
        make(&link.join("x")).unwrap();
        assert_eq!(mode(&real.join("x")), 0o700);
        symlink("round", top.path().join("round")).unwrap();
        let why = make(&top.path().join("round/x")).unwrap_err();
        assert!(matches!(why, NotPrivate::Io { .. }), "{why}");
    }

    #[test]
    fn a_directory_below_one_of_another_user_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let theirs = dir(&top.path().join("theirs"), 0o755);
        if chown(&theirs, Some(12_345), None).is_err() {
            return; // only root can give a directory away
        }
        let ours = dir(&theirs.join("ours"), 0o700);
        for path in [&theirs, &ours, &theirs.join("new")] {
            let why = make(path).unwrap_err();
            assert!(
                matches!(why, NotPrivate::Foreign { uid: 12_345, .. }),
                "{why}"
            );
        }
        assert!(!theirs.join("new").exists());
    }
}
