//! Which files are ours: the first line of each carries a hash of the rest. In XML, whose declaration must
//! come first, it is the second one.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::ServiceError;
use crate::config::regular_file;

/// How a property list begins, and every other XML file of ours.
const XML: &str = "<?xml ";

/// How the line begins; unit files and TOML both take `#` for a comment.
const MARK: &str =
    "# Written by gatewayctl install, which replaces this file only while it is unchanged. sha256:";

/// The same of a file that `gatewayctl config init` wrote, for somebody to edit.
const STARTER_MARK: &str = "# Written by gatewayctl config init; install and uninstall replace or remove this file only while it is unchanged. sha256:";

/// A longer file, in bytes, is not read: ours have some kilobytes, and it may be another user's.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// As we wrote it; the text without our line.
    ByUs(String),
    /// Written by us and changed since; the text without our line.
    Edited(String),
    /// Somebody else's; its text.
    Foreign(String),
    Absent,
}

impl Written {
    /// Looks at a file.
    ///
    /// # Errors
    /// Whatever the file system says, but for a missing file. A file that is not text is somebody
    /// else's, and so is a link, wherever it leads: we write none, and a masked unit is one.
    pub fn at(path: &Path) -> io::Result<Self> {
        let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        match regular_file::read(path, FILE_MAX) {
            Ok(bytes) if is_link => Ok(Self::Foreign(String::from_utf8_lossy(&bytes).into_owned())),
            // Such as the link to /dev/null of a masked unit.
            Err(error)
                if is_link
                    && matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::InvalidData
                    ) =>
            {
                Ok(Self::Foreign(String::new()))
            }
            Ok(bytes) => Ok(Self::of(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Absent),
            Err(error) => Err(error),
        }
    }

    /// The same, with an error for people.
    pub(super) fn look(path: &Path) -> Result<Self, ServiceError> {
        Self::at(path).map_err(|error| ServiceError::file("read", path, &error))
    }

    fn of(text: &str) -> Self {
        if text.starts_with(XML) {
            return Self::of_xml(text);
        }
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let hash = [MARK, STARTER_MARK]
            .iter()
            .find_map(|mark| first.strip_prefix(mark));
        match hash {
            None => Self::Foreign(text.to_owned()),
            Some(hash) if hash == hash_of(rest) => Self::ByUs(rest.to_owned()),
            Some(_) => Self::Edited(rest.to_owned()),
        }
    }

    fn of_xml(text: &str) -> Self {
        let signed = text.split_once('\n').and_then(|(declaration, rest)| {
            let (line, rest) = rest.split_once('\n')?;
            let line = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
            let hash = line.strip_prefix(MARK.strip_prefix("# ")?)?;
            Some((hash, format!("{declaration}\n{rest}")))
        });
        match signed {
            None => Self::Foreign(text.to_owned()),
            Some((hash, body)) if hash == hash_of(&body) => Self::ByUs(body),
            Some((_, body)) => Self::Edited(body),
        }
    }

    /// The text, with or without a provenance line.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::ByUs(text) | Self::Edited(text) | Self::Foreign(text) => Some(text),
            Self::Absent => None,
        }
    }

    /// Whether it may be replaced or removed.
    pub fn is_free(&self) -> bool {
        matches!(self, Self::ByUs(_) | Self::Absent)
    }

    /// Why it may not be replaced, in words.
    pub fn why_not(&self) -> &'static str {
        match self {
            Self::Edited(_) => "was changed since gatewayctl wrote it",
            _ => "was not written by gatewayctl",
        }
    }
}

/// `body` with our line before it.
pub fn sign(body: &str) -> String {
    let line = format!("{MARK}{}", hash_of(body));
    match body.split_once('\n') {
        Some((declaration, rest)) if declaration.starts_with(XML) => {
            let line = line.trim_start_matches("# ");
            format!("{declaration}\n<!-- {line} -->\n{rest}")
        }
        _ => format!("{line}\n{body}"),
    }
}

/// The same for a file that somebody is to edit.
pub fn sign_starter(body: &str) -> String {
    format!("{STARTER_MARK}{}\n{body}", hash_of(body))
}

/// What would change, as a unified diff; empty when nothing would.
pub fn diff(path: &Path, old: &str, new: &str) -> String {
    let name = path.display().to_string();
    similar::TextDiff::from_lines(old, new)
        .unified_diff()
        .header(&name, &format!("{name} (new)"))
        .to_string()
}

fn hash_of(body: &str) -> String {
    Sha256::digest(body.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_our_own_from_edited_and_foreign_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.service");
        assert_eq!(Written::at(&path).unwrap(), Written::Absent);
        let signed = sign("[Unit]\nA=1\n");
        std::fs::write(&path, &signed).unwrap();
        assert_eq!(
            Written::at(&path).unwrap(),
            Written::ByUs("[Unit]\nA=1\n".into())
        );
        std::fs::write(&path, sign_starter("x = 1\n")).unwrap();
        assert_eq!(Written::at(&path).unwrap(), Written::ByUs("x = 1\n".into()));
        std::fs::write(&path, sign_starter("x = 1\n") + "y = 2\n").unwrap();
        assert!(matches!(Written::at(&path).unwrap(), Written::Edited(_)));
        std::fs::write(&path, signed.replace("A=1", "A=2")).unwrap();
        assert_eq!(
            Written::at(&path).unwrap(),
            Written::Edited("[Unit]\nA=2\n".into())
        );
        std::fs::write(&path, "[Unit]\nA=1\n").unwrap();
        assert!(!Written::at(&path).unwrap().is_free());
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(Written::at(&path).unwrap(), Written::Foreign(_)));
        std::fs::write(&path, &signed).unwrap();
        for target in [path.as_path(), Path::new("/dev/null"), Path::new("nowhere")] {
            let link = dir.path().join("link");
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert!(
                matches!(Written::at(&link).unwrap(), Written::Foreign(_)),
                "{}",
                target.display()
            );
            std::fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn a_property_list_is_signed_behind_its_declaration() {
        let body = "<?xml version=\"1.0\"?>\n<plist/>\n";
        let signed = sign(body);
        assert!(
            signed.starts_with("<?xml version=\"1.0\"?>\n<!-- Written by "),
            "{signed}"
        );
        assert_eq!(Written::of(&signed), Written::ByUs(body.to_owned()));
        let edited = signed.replace("<plist/>", "<plist></plist>");
        assert!(
            matches!(Written::of(&edited), Written::Edited(text) if text.ends_with("</plist>\n"))
        );
        assert_eq!(Written::of(body), Written::Foreign(body.to_owned()));
    }

    #[test]
    fn the_diff_names_the_file() {
        let text = diff(Path::new("/etc/x"), "a\nb\n", "a\nc\n");
        assert!(
            text.starts_with("--- /etc/x\n+++ /etc/x (new)\n") && text.contains("\n-b\n+c\n"),
            "{text}"
        );
        assert_eq!(diff(Path::new("/etc/x"), "a\n", "a\n"), "");
    }
}
