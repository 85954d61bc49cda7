//! The working directory by the name under which it was entered.

use std::path::{Path, PathBuf};

use super::process::same_file;

/// The working directory under the name in `$PWD` (POSIX, pwd -L), where a link is on the way to it.
/// Who uses the name follows the link anew: a deployment that points `current` to the next release
/// moves the directory. None where the name has no link, or leads elsewhere.
pub fn by_link(pwd: Option<PathBuf>) -> Option<PathBuf> {
    let pwd = pwd.filter(|pwd| pwd.is_absolute() && same_file(pwd, Path::new(".")))?;
    let resolved = pwd.canonicalize().ok()?;
    (resolved != pwd).then_some(pwd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_link_or_of_another_directory_is_none() {
        let here = std::env::current_dir().unwrap();
        let here = here.canonicalize().unwrap();
        assert_eq!(by_link(Some(here.clone())), None);
        assert_eq!(by_link(Some("/proc".into())), None);
        assert_eq!(by_link(Some(".".into())), None);
        assert_eq!(by_link(None), None);
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        std::os::unix::fs::symlink(&here, &link).unwrap();
        assert_eq!(by_link(Some(link.clone())), Some(link));
    }
}
