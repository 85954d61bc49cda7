//! All gateways that are installed on this machine: those of the caller, of the machine and, for
//! root, of ordinary users, each as its own user has it.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::layout::{Installed, Layout, installed};
use super::start_stop::configuration;
use crate::config::{Config, Env, Listen};
use crate::state::paths::Scope;

/// Below are the accounts of the system itself, whose homes hold no user's services (login.defs,
/// UID_MIN).
const FIRST_USER: u32 = 1000;

/// An installed gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub unit: Installed,
    /// The home of its user, where that is neither the caller nor the machine.
    pub home: Option<PathBuf>,
}

/// An ordinary user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalUser {
    pub name: String,
    pub uid: u32,
    pub home: PathBuf,
}

impl LocalUser {
    /// The gateways that are installed for this user alone.
    pub fn installed(&self) -> Vec<Installed> {
        let mut found = installed(&Env(&variables_of(&self.home)), Some(Scope::User));
        found.retain(|unit| unit.path.starts_with(&self.home));
        found
    }
}

/// Every installed gateway that can be seen, each once.
pub fn neighbours(env: &Env<'_>) -> Vec<Neighbour> {
    let own = |unit| Neighbour { unit, home: None };
    let mut found: Vec<_> = installed(env, None).into_iter().map(own).collect();
    let has_units = |user: &LocalUser| user.home.join(".config/systemd/user").is_dir();
    for user in users().into_iter().filter(has_units) {
        for unit in user.installed() {
            // What is for all users was seen with the caller's own.
            if !found.iter().any(|known| known.unit.path == unit.path) {
                let home = Some(user.home.clone());
                found.push(Neighbour { unit, home });
            }
        }
    }
    found
}

impl Neighbour {
    /// Its configuration file.
    pub fn config_file(&self, env: &Env<'_>) -> Option<PathBuf> {
        self.in_its_environment(env, |env| {
            let layout = Layout::of(self.unit.scope, env).ok()?;
            Some(layout.config_file(&self.unit.instance))
        })
    }

    /// Where it listens; nothing where its configuration cannot be read or understood, and for a unit
    /// that a distribution ships and nobody enabled.
    pub fn listeners(&self, env: &Env<'_>) -> Vec<Listen> {
        let file = self.config_file(env);
        let missing = file.is_some_and(|file| {
            let facts = file.symlink_metadata();
            facts.is_err_and(|error| error.kind() == ErrorKind::NotFound)
        });
        let config = match missing {
            true => self.is_wanted(env).then(Config::default),
            false => self.in_its_environment(env, |env| {
                let read = configuration(env, &self.unit).ok().flatten();
                read.map(|(_, config)| config)
            }),
        };
        config.map_or_else(Vec::new, |config| config.gateway.listen)
    }

    /// Whether the unit was put there by an operator or a user, or is enabled.
    pub fn is_wanted(&self, env: &Env<'_>) -> bool {
        let Ok(layout) = Layout::of(self.unit.scope, env) else {
            return false;
        };
        let linked = |target: &str| {
            let wants = layout.units.join(format!("{target}.target.wants"));
            wants.join(&self.unit.unit).symlink_metadata().is_ok()
        };
        self.home.is_some()
            || self.unit.path.starts_with(&layout.units)
            || linked("multi-user")
            || linked("default")
    }

    fn in_its_environment<T>(&self, env: &Env<'_>, look: impl FnOnce(&Env<'_>) -> T) -> T {
        match &self.home {
            Some(home) => look(&Env(&variables_of(home))),
            None => look(env),
        }
    }
}

/// The variables of another user, as far as they are known.
fn variables_of(home: &Path) -> impl Fn(&str) -> Option<OsString> {
    move |name| (name == "HOME").then(|| home.as_os_str().to_owned())
}

/// The ordinary users; none unless the caller is root, who alone may look into their homes.
pub fn users() -> Vec<LocalUser> {
    let table = if nix::unistd::geteuid().is_root() {
        std::fs::read_to_string("/etc/passwd").unwrap_or_default()
    } else {
        String::new()
    };
    let user = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let uid: u32 = fields.get(2)?.parse().ok()?;
        let user = LocalUser {
            name: (*fields.first()?).to_owned(),
            uid,
            home: fields.get(5)?.into(),
        };
        (uid >= FIRST_USER && user.home.is_dir()).then_some(user)
    };
    table.lines().filter_map(user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_users_gateway_has_the_configuration_of_that_user() {
        let dir = tempfile::tempdir().unwrap();
        let (caller, other) = (dir.path().join("caller"), dir.path().join("other"));
        for (home, listen) in [(&caller, "127.0.0.1:1"), (&other, "127.0.0.1:2")] {
            std::fs::create_dir_all(home.join(".config/gateway")).unwrap();
            let text = format!("[gateway]\nlisten = [\"{listen}\"]\n");
            std::fs::write(home.join(".config/gateway/gateway.toml"), text).unwrap();
        }
        let unit = Installed {
            instance: "gateway".into(),
            scope: Scope::User,
            manager: crate::service::ServiceManagerKind::Systemd,
            unit: "gateway.service".into(),
            path: other.join(".config/systemd/user/gateway.service"),
            socket: None,
        };
        let theirs = Neighbour {
            unit,
            home: Some(other.clone()),
        };
        let variables = variables_of(&caller);
        let env = Env(&variables);
        let listen = |text: &str| vec![text.parse::<Listen>().unwrap()];
        assert_eq!(theirs.listeners(&env), listen("127.0.0.1:2"));

        // A pipe there hangs nobody.
        let file = theirs.config_file(&env).unwrap();
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(theirs.listeners(&env), []);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(theirs.listeners(&env), Config::default().gateway.listen);
    }
}
