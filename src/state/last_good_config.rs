//! `good.toml`: the text of the last configuration that served, for use when the current one is not
//! valid. It is the file as it was read: environment and flags are applied again when it is used.

use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::paths::Paths;
use super::{atomic_file, untrusted_file};
use crate::config::{Env, Loaded, Overrides, TEXT_MAX, load_text, whereabouts};

/// Keeps the text of a configuration whose generation is ready; without a file, an empty text, which
/// means the defaults. Nothing is written when the same text is there already.
pub fn save(dir: &Path, loaded: &Loaded) -> io::Result<()> {
    let text = loaded.text.as_deref().unwrap_or_default();
    let path = path(dir);
    if untrusted_file::read(&path, TEXT_MAX).is_ok_and(|kept| kept == text.as_bytes()) {
        return Ok(());
    }
    atomic_file::write(&path, text.as_bytes(), 0o600)
}

/// The last good configuration with the current environment and flags; none when there is none, or
/// when it is not valid with them. Its `path` is the file that should have been read: the next
/// reload reads that one.
pub fn load(flags: &Overrides, env: &Env<'_>) -> Option<Loaded> {
    let found = whereabouts(flags, env);
    let paths = Paths::of_process(env, &found.instance, found.state_dir.as_deref());
    load_from(&paths.state, flags, env)
}

/// As [`load`], from a known state directory: a file that is not valid may not say where that is.
pub fn load_from(dir: &Path, flags: &Overrides, env: &Env<'_>) -> Option<Loaded> {
    let wanted = whereabouts(flags, env).path;
    let path = path(dir);
    let text = match untrusted_file::read(&path, TEXT_MAX).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Ok(Err(error)) => {
            untrusted_file::quarantine(&path, &error.to_string());
            return None;
        }
        Err(error) => {
            warn!(
                "[gateway] the last good configuration cannot be read: {}: {error}",
                path.display()
            );
            return None;
        }
    };
    match load_text(flags, env, &path, Some(text)) {
        Ok(loaded) => Some(Loaded {
            path: Some(wanted),
            ..loaded
        }),
        Err(error) => {
            warn!(
                "[gateway] the last good configuration is not valid with the flags and variables of now: {error}"
            );
            None
        }
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("good.toml")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::fixture::setting;
    use crate::config::{self, Dur};
    use crate::state::atomic_file::mode;

    fn none(_: &str) -> Option<OsString> {
        None
    }

    #[test]
    fn what_served_is_served_again_with_the_flags_of_now() {
        let (dir, mut flags) = setting("# mine\n[restart]\ndrain = \"7s\"\nstop_drain = \"3s\"\n");
        assert!(load(&flags, &Env(&none)).is_none());
        save(dir.path(), &config::load(&flags, &Env(&none)).unwrap()).unwrap();
        let kept = path(dir.path());
        assert_eq!(mode(&kept), 0o600, "a command may hold secrets");
        std::fs::write(flags.config.as_ref().unwrap(), "[restart]\ndrian = 1\n").unwrap();
        assert!(config::load(&flags, &Env(&none)).is_err());
        flags.listen = vec!["1003".parse().unwrap()];
        let env = |name: &str| (name == "GATEWAY_RESTART_STOP_DRAIN").then(|| "4s".into());
        let good = load(&flags, &Env(&env)).unwrap();
        assert_eq!(
            (good.config.restart.drain, good.config.restart.stop_drain),
            (Dur::secs(7), Dur::secs(4))
        );
        assert_eq!(good.config.gateway.listen[0].port(), Some(1003));
        assert_eq!(
            good.path, flags.config,
            "the next reload reads the user's file"
        );
        let modified = || std::fs::metadata(&kept).unwrap().modified().unwrap();
        let written = modified();
        save(dir.path(), &good).unwrap();
        assert_eq!(modified(), written, "nothing is written twice");
    }

    #[test]
    fn no_file_is_good_as_well() {
        let (dir, mut flags) = setting("[gateway]\nlisen = []\n");
        let bad = flags.config.take();
        let env = |name: &str| (name == "CONFIGURATION_DIRECTORY").then(|| "/nonexistent".into());
        let defaults = config::load(&flags, &Env(&env)).unwrap();
        save(dir.path(), &defaults).unwrap();
        flags.config = bad;
        assert_eq!(load(&flags, &Env(&none)).unwrap().config, defaults.config);
    }

    #[test]
    fn what_is_no_configuration_any_more_is_not_served() {
        let (dir, flags) = setting("");
        std::fs::write(path(dir.path()), "[gateway]\nkey_of_a_later_version = 1\n").unwrap();
        assert!(load(&flags, &Env(&none)).is_none());
        assert!(
            path(dir.path()).exists(),
            "another version may understand it"
        );
        std::fs::write(path(dir.path()), [0xff, 0xfe]).unwrap();
        assert!(load(&flags, &Env(&none)).is_none());
        assert!(untrusted_file::quarantine_path(&path(dir.path())).exists());
    }
}
