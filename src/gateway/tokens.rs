//! The tokens of `/_gateway/…`: from the configured files, or made in the state directory.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use tracing::warn;

use crate::config::{Config, regular_file};
use crate::control::access::{AccessTokens, Authority, TokenGrant};
use crate::state::{atomic_file, untrusted_file};

/// A longer token is not read.
const TOKEN_MAX: u64 = 4096;

/// A shorter token is found by trying: 16 characters of Base64 are 96 bits.
const LENGTH_MIN: usize = 16;

/// Bytes of a token that is made.
const RANDOM: usize = 24;

/// The names of the files that are made.
const OWNER: &str = "token";
const READER: &str = "reader-token";

/// A token, and why others than those for whom it is meant may know it.
struct FoundToken {
    text: String,
    known_to_others: Option<String>,
}

/// Both tokens, as far as there are any; the log says what is wrong with them. One that others may know
/// opens the pages alone: those it opened before the control protocol was behind it.
pub fn read(config: &Config, state: &Path) -> AccessTokens {
    let passed = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    read_with(config, state, passed.as_deref())
}

/// The same where the service manager has put secrets into the directory `passed`.
fn read_with(config: &Config, state: &Path, passed: Option<&Path>) -> AccessTokens {
    let section = &config.gateway;
    let found = |configured: &Option<PathBuf>, made| {
        known(configured.as_deref(), &state.join(made), passed)
    };
    let owner = found(&section.token_file, OWNER);
    let reader = found(&section.reader_token_file, READER);
    // The same text in both files is as secret as the file that others can read.
    let both = owner.as_ref().zip(reader.as_ref());
    let shared = both.is_some_and(|(owner, reader)| owner.text == reader.text);
    let exposed = |found: &Option<FoundToken>| {
        (found.as_ref()).is_some_and(|found| found.known_to_others.is_some())
    };
    let either = shared && (exposed(&owner) || exposed(&reader));
    let opens = |found: &Option<FoundToken>, authority| match exposed(found) || either {
        true => TokenGrant::Pages,
        false => TokenGrant::Control(authority),
    };
    let access = [
        (&owner, opens(&owner, Authority::Owner)),
        (&reader, opens(&reader, Authority::Reader)),
    ];
    AccessTokens::new(access.into_iter().filter_map(|(found, access)| {
        let found = found.as_ref()?;
        Some((&*found.text, access))
    }))
}

/// The token of this configured file, else of the one that is made at `usual`.
fn known(configured: Option<&Path>, usual: &Path, passed: Option<&Path>) -> Option<FoundToken> {
    let (path, found) = match configured {
        Some(path) => (path, from_configured(path, passed)),
        None => (usual, from_state(usual)),
    };
    let found = found.inspect_err(|error| {
        warn!(
            "[gateway] no bearer token, so /_gateway/ answers nobody who has that of {}: {error}",
            path.display()
        );
    });
    let found = found.ok().map(|found| found.if_guessable(path))?;
    if let Some(why) = &found.known_to_others {
        warn!(
            "[gateway] {why}: the token in it opens the pages below /_gateway/ alone, not /_gateway/ws; put at least {LENGTH_MIN} characters into a file of the gateway's user with mode 0600, and restart"
        );
    }
    Some(found)
}

impl FoundToken {
    /// The same, known to others if it is so short that they find it by trying.
    fn if_guessable(self, path: &Path) -> Self {
        let short = (self.text.len() < LENGTH_MIN).then(|| {
            let path = path.display();
            format!(
                "the token in {path} has fewer than {LENGTH_MIN} characters, so it can be guessed"
            )
        });
        Self {
            known_to_others: self.known_to_others.or(short),
            ..self
        }
    }
}

/// Secrets are often links, which say nothing of who can change where they lead.
fn from_configured(path: &Path, passed: Option<&Path>) -> io::Result<FoundToken> {
    let file = regular_file::open(path)?;
    // What stands there now and what was opened are one and the same, or a link was between them.
    let (stands, opened) = (std::fs::symlink_metadata(path)?, file.metadata()?);
    let same = (stands.dev(), stands.ino()) == (opened.dev(), opened.ino());
    let known_to_others = match same {
        false => Some(format!("{} is a symbolic link", path.display())),
        true if is_passed(path, &file, passed)? => None,
        true => exposure(path, &file)?,
    };
    let text = text_of(regular_file::bounded(&file, TOKEN_MAX)?)?;
    Ok(FoundToken {
        text,
        known_to_others,
    })
}

/// Whether the service manager has put this file there for this service alone: systemd lets its user read
/// it by an access control list, whose mask stands where a mode has the rights of a group
/// (systemd.exec(5), LoadCredential=).
fn is_passed(path: &Path, file: &File, passed: Option<&Path>) -> io::Result<bool> {
    let Some(directory) = passed.filter(|passed| path.parent() == Some(passed)) else {
        return Ok(false);
    };
    let (directory, file) = (std::fs::symlink_metadata(directory)?, file.metadata()?);
    let only_roots = |of: &Metadata, bits| of.uid() == 0 && of.mode() & bits == 0;
    Ok(directory.is_dir() && only_roots(&directory, 0o027) && only_roots(&file, 0o027))
}

/// Made where there is none, or none that can be used.
fn from_state(path: &Path) -> io::Result<FoundToken> {
    let read = || {
        let file = untrusted_file::open(path, OFlag::O_RDONLY)?;
        let text = text_of(regular_file::bounded(&file, TOKEN_MAX)?)?;
        let known_to_others = open_to_others(path, &file)?;
        io::Result::Ok(FoundToken {
            text,
            known_to_others,
        })
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
        known_to_others: None,
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
        token if token.bytes().all(|byte| matches!(byte, b' '..=b'~')) => Ok(token.to_owned()),
        _ => Err(invalid(
            "it is not one line of visible ASCII characters, so no client can send it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    const SECRET: &str = "a-secret-of-some-length";
    const OWNS: Option<TokenGrant> = Some(TokenGrant::Control(Authority::Owner));

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_a_file_that_others_cannot_read_controls_the_gateway() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("given");
        std::fs::write(&path, SECRET).unwrap();
        let mut config = Config::default();
        config.gateway.token_file = Some(path.clone());
        let opens = |config: &Config| read_with(config, dir.path(), None).access(SECRET);
        for (bits, opened) in [
            (0o600, OWNS),
            (0o400, OWNS),
            (0o640, Some(TokenGrant::Pages)),
            (0o604, Some(TokenGrant::Pages)),
        ] {
            set_mode(&path, bits);
            assert_eq!(opens(&config), opened, "{bits:o}");
        }
        set_mode(&path, 0o600);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        config.gateway.token_file = Some(link);
        assert_eq!(opens(&config), Some(TokenGrant::Pages), "a link");
        config.gateway.token_file = Some(path.clone());
        // Only root can give a file away.
        if chown(&path, Some(12_345), None).is_ok() {
            assert_eq!(opens(&config), Some(TokenGrant::Pages), "of another user");
        }
    }

    #[test]
    fn a_file_that_the_service_manager_passes_is_the_services_own() {
        let dir = tempfile::tempdir().unwrap();
        let passed = dir.path().join("credentials");
        std::fs::create_dir(&passed).unwrap();
        let path = passed.join("token");
        std::fs::write(&path, SECRET).unwrap();
        let mut config = Config::default();
        config.gateway.token_file = Some(path.clone());
        let opens = |mode, passed: &Path| {
            set_mode(&path, mode);
            read_with(&config, dir.path(), Some(passed)).access(SECRET)
        };
        let of_root = nix::unistd::geteuid().is_root();
        let by_list = if of_root {
            OWNS
        } else {
            Some(TokenGrant::Pages)
        };
        set_mode(&passed, 0o750);
        for (mode, by, opened) in [
            (0o440, &*passed, by_list),
            (0o400, &*passed, OWNS),
            (0o444, &*passed, Some(TokenGrant::Pages)),
            (0o460, &*passed, Some(TokenGrant::Pages)),
            (0o440, dir.path(), Some(TokenGrant::Pages)),
        ] {
            assert_eq!(opens(mode, by), opened, "{mode:o} in {}", by.display());
        }
        set_mode(&passed, 0o755);
        assert_eq!(
            opens(0o440, &passed),
            Some(TokenGrant::Pages),
            "of everybody"
        );
    }

    #[test]
    fn both_tokens_are_made_once_and_differ() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::default();
        read_with(&config, dir.path(), None);
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let (owner, reader) = (text(OWNER), text(READER));
        assert_ne!(owner, reader);
        let again = read_with(&config, dir.path(), None);
        assert_eq!(again.access(owner.trim()), OWNS);
        let reads = Some(TokenGrant::Control(Authority::Reader));
        assert_eq!(again.access(reader.trim()), reads);
        for name in [OWNER, READER] {
            assert_eq!(atomic_file::mode(&dir.path().join(name)), 0o600);
        }
    }
}
