//! The tokens of `/_gateway/…`: from the configured files, or made in the state directory.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::OFlag;
use tracing::warn;

use crate::config::{Config, regular_file};
use crate::control::access::{AccessTokens, Authority};
use crate::state::{atomic_file, untrusted_file};

/// A longer token is not read.
const TOKEN_MAX: u64 = 4096;

/// Bytes of a token that is made.
const RANDOM: usize = 24;

/// The names of the files that are made.
const OWNER: &str = "token";
const READER: &str = "reader-token";

/// A token, and why others may know it, too.
struct FoundToken {
    text: String,
    exposed: Option<String>,
}

/// Both tokens, as far as there are any; the log says what is wrong with the others.
pub fn read(config: &Config, state: &Path) -> AccessTokens {
    let section = &config.gateway;
    let owner = known(section.token_file.as_deref(), &state.join(OWNER));
    let reader = known(section.reader_token_file.as_deref(), &state.join(READER));
    let authority = match owner.as_ref().and_then(|owner| owner.exposed.as_ref()) {
        None => Authority::Owner,
        Some(why) => {
            warn!(
                "[gateway] {why}: the token in it opens the pages below /_gateway/, and does not control the gateway; make it a file of the gateway's user with mode 0600, and restart"
            );
            Authority::Reader
        }
    };
    let owner = owner.as_ref().map(|found| (&*found.text, authority));
    let reader = reader
        .as_ref()
        .map(|found| (&*found.text, Authority::Reader));
    AccessTokens::new(owner.into_iter().chain(reader))
}

/// The token of this configured file, else of the one that is made at `usual`.
fn known(configured: Option<&Path>, usual: &Path) -> Option<FoundToken> {
    let (path, found) = match configured {
        Some(path) => (path, from_configured(path)),
        None => (usual, from_state(usual)),
    };
    found
        .inspect_err(|error| {
            warn!(
                "[gateway] no bearer token, so /_gateway/ answers nobody who has that of {}: {error}",
                path.display()
            );
        })
        .ok()
}

/// Secrets are often links, which say nothing of who can change where they lead.
fn from_configured(path: &Path) -> io::Result<FoundToken> {
    let file = regular_file::open(path)?;
    let link = std::fs::symlink_metadata(path)?.is_symlink();
    let exposed = match link {
        true => Some(format!("{} is a symbolic link", path.display())),
        false => exposure(path, &file)?,
    };
    let text = text_of(regular_file::bounded(&file, TOKEN_MAX)?)?;
    Ok(FoundToken { text, exposed })
}

/// Made where there is none, or none that can be used.
fn from_state(path: &Path) -> io::Result<FoundToken> {
    let read = || {
        let file = untrusted_file::open(path, OFlag::O_RDONLY)?;
        let text = text_of(regular_file::bounded(&file, TOKEN_MAX)?)?;
        let exposed = open_to_others(path, &file)?;
        io::Result::Ok(FoundToken { text, exposed })
    };
    match read() {
        Ok(found) => return Ok(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            untrusted_file::quarantine(path, &error.to_string());
        }
        // Somebody has a lease on it.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            warn!(
                "[gateway] cannot read {}: {error}; replacing it",
                path.display()
            );
        }
        Err(error) => return Err(error),
    }
    let mut bytes = [0; RANDOM];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    atomic_file::write(path, format!("{text}\n").as_bytes(), 0o600)?;
    Ok(FoundToken {
        text,
        exposed: None,
    })
}

/// Why others than the gateway's user and root may know what this file says, or have written it.
fn exposure(path: &Path, file: &File) -> io::Result<Option<String>> {
    let owner = file.metadata()?.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Ok(Some(format!("{} belongs to uid {owner}", path.display())));
    }
    open_to_others(path, file)
}

fn open_to_others(path: &Path, file: &File) -> io::Result<Option<String>> {
    let mode = file.metadata()?.mode() & 0o777;
    let open = (mode & 0o077 != 0).then(|| {
        let path = path.display();
        format!("{path} has mode {mode:04o}, so other users get at it")
    });
    Ok(open)
}

/// The token in a file.
fn text_of(file: Vec<u8>) -> io::Result<String> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let text = String::from_utf8(file).map_err(|_| invalid("it is not text"))?;
    match text.trim() {
        "" => Err(invalid("it is empty")),
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn only_a_file_that_others_cannot_read_controls_the_gateway() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("given");
        std::fs::write(&path, "secret\n").unwrap();
        let mut config = Config::default();
        config.gateway.token_file = Some(path.clone());
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let allows = |config: &Config| read(config, dir.path()).authority("secret");
        for (bits, allowed) in [
            (0o600, Authority::Owner),
            (0o400, Authority::Owner),
            (0o640, Authority::Reader),
            (0o604, Authority::Reader),
        ] {
            mode(bits);
            assert_eq!(allows(&config), Some(allowed), "{bits:o}");
        }
        mode(0o600);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        config.gateway.token_file = Some(link);
        assert_eq!(allows(&config), Some(Authority::Reader), "a link");
        config.gateway.token_file = Some(path.clone());
        // Only root can give a file away.
        if chown(&path, Some(12_345), None).is_ok() {
            assert_eq!(allows(&config), Some(Authority::Reader), "of another user");
        }
    }

    #[test]
    fn both_tokens_are_made_once_and_differ() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::default();
        read(&config, dir.path());
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let (owner, reader) = (text(OWNER), text(READER));
        assert_ne!(owner, reader);
        let again = read(&config, dir.path());
        assert_eq!(again.authority(owner.trim()), Some(Authority::Owner));
        assert_eq!(again.authority(reader.trim()), Some(Authority::Reader));
        for name in [OWNER, READER] {
            assert_eq!(atomic_file::mode(&dir.path().join(name)), 0o600);
        }
    }
}
