//! Where the state directory and the control socket of an instance are.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{Env, check_instance};
use crate::text::words::words;

/// The directory of the machine's state directories.
const MACHINE_STATES: &str = "/var/lib/gateway";

/// The same where launchd starts the machine's gateways.
const MACHINE_STATES_OF_LAUNCHD: &str = "var/db/gateway";

/// What tests have instead of `/` where launchd has its files; in debug builds only.
const TEST_ROOT: &str = "GATEWAY_LAUNCHD_ROOT";

/// What the machine's files of launchd are below; none where there is no launchd.
pub fn launchd_root(env: &Env<'_>) -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        return Some("/".into());
    }
    env.path(TEST_ROOT).filter(|_| cfg!(debug_assertions))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The state directory, 0700.
    pub state: PathBuf,
    /// The control socket, 0600.
    pub control: PathBuf,
}

impl Paths {
    /// The paths of a gateway process.
    ///
    /// State: `explicit` (flag or configuration), `$STATE_DIRECTORY`, then XDG state with the
    /// instance's name. Control socket: with `explicit` STATE/run/control.sock; else
    /// `$RUNTIME_DIRECTORY`, `$XDG_RUNTIME_DIR/gateway/INSTANCE`, or STATE/run/control.sock.
    pub fn of_process(env: &Env<'_>, instance: &str, explicit: Option<&Path>) -> Self {
        if let Some(state) = explicit {
            return Self::in_state_dir(state);
        }
        let state = first_of_list(env.path("STATE_DIRECTORY"))
            .unwrap_or_else(|| user_states(env).join(instance));
        let runtime = first_of_list(env.path("RUNTIME_DIRECTORY"))
            .or_else(|| own_runtime_dir(env).map(|dir| dir.join("gateway").join(instance)));
        let control = socket_in(&runtime.unwrap_or_else(|| state.join("run")));
        Self { state, control }
    }

    /// The paths of an instance with a state directory of its own.
    pub fn in_state_dir(state: &Path) -> Self {
        // Servers are told of sockets in it, and have directories of their own; libsystemd takes no
        // relative $NOTIFY_SOCKET at all.
        let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
        Self {
            control: socket_in(&state.join("run")),
            state,
        }
    }

    /// The state directory that a control socket is in; none for one elsewhere.
    pub fn state_of(control: &Path) -> Option<PathBuf> {
        let state = control.parent()?.parent()?;
        (Self::in_state_dir(state).control == control).then(|| state.to_owned())
    }

    /// Where the state of an instance usually is: the user's place, then the machine's.
    pub fn usual_states(env: &Env<'_>, instance: &str) -> Vec<PathBuf> {
        vec![
            user_states(env).join(instance),
            machine_states(env).join(instance),
        ]
    }

    /// The instances that have a state directory in the user's place, each with it.
    pub fn states(env: &Env<'_>) -> Vec<(String, PathBuf)> {
        let root = user_states(env);
        let mut found: Vec<_> = instances_in(&root)
            .map(|name| (name.clone(), root.join(name)))
            .collect();
        found.sort();
        found
    }

    /// The directories in which a gateway that is started makes one of its own, with its control socket
    /// in it.
    pub fn instance_roots(env: &Env<'_>, scope: Option<Scope>) -> Vec<PathBuf> {
        roots(env, scope).into_iter().map(|root| root.dir).collect()
    }

    /// Where control sockets of the instances are or will be that have a directory in those.
    pub fn expected(env: &Env<'_>, scope: Option<Scope>) -> Vec<PathBuf> {
        let roots = roots(env, scope).into_iter();
        roots
            .flat_map(|root| {
                let names: Vec<String> = instances_in(&root.dir).collect();
                names.into_iter().map(move |name| root.socket(&name))
            })
            .collect()
    }

    /// Every place where a control socket of `instance` may be, the likeliest first; without a
    /// scope, of both.
    pub fn candidates(env: &Env<'_>, instance: &str, scope: Option<Scope>) -> Vec<PathBuf> {
        roots(env, scope)
            .into_iter()
            .map(|root| root.socket(instance))
            .collect()
    }

    /// The instances that have a control socket, each with the socket's path.
    pub fn instances(env: &Env<'_>, scope: Option<Scope>) -> Vec<(String, PathBuf)> {
        Self::in_roots(roots(env, scope))
    }

    /// The same of another user, whom root may ask.
    pub fn instances_of(uid: u32, home: &Path) -> Vec<(String, PathBuf)> {
        let runtime = PathBuf::from(format!("/run/user/{uid}/gateway"));
        Self::in_roots(vec![
            Root {
                dir: runtime,
                in_state: false,
            },
            Root {
                dir: home.join(".local/state/gateway"),
                in_state: true,
            },
        ])
    }

    fn in_roots(roots: Vec<Root>) -> Vec<(String, PathBuf)> {
        let mut found = BTreeSet::new();
        for root in roots {
            for name in instances_in(&root.dir) {
                let socket = root.socket(&name);
                if socket.exists() {
                    found.insert((name, socket));
                }
            }
        }
        found.into_iter().collect()
    }
}

/// The names in a directory that has a directory for each instance. Whoever may make one there chooses
/// its name.
fn instances_in(dir: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| check_instance(name).is_ok())
}

words! {
    /// Whose service manager an instance belongs to.
    pub enum Scope {
        /// The machine's.
        System = "system",
        /// That of one user.
        User = "user",
    }
}

/// A directory with a directory for each instance.
struct Root {
    dir: PathBuf,
    /// Whether those are state directories, with the socket in `run`.
    in_state: bool,
}

impl Root {
    fn socket(&self, instance: &str) -> PathBuf {
        let dir = self.dir.join(instance);
        socket_in(&if self.in_state { dir.join("run") } else { dir })
    }
}

fn roots(env: &Env<'_>, scope: Option<Scope>) -> Vec<Root> {
    let root = |dir, in_state| Root { dir, in_state };
    let mut roots = Vec::new();
    if scope != Some(Scope::System) {
        roots.push(root(runtime_dir(env).join("gateway"), false));
        roots.push(root(user_states(env), true));
    }
    if scope != Some(Scope::User) {
        roots.push(match launchd_root(env) {
            Some(_) => root(machine_states(env), true),
            None => root("/run/gateway".into(), false),
        });
    }
    roots
}

/// `$XDG_RUNTIME_DIR`, unless it belongs to another user, as `su` and `sudo -E` leave it in the
/// environment: what answers there speaks for that user.
fn own_runtime_dir(env: &Env<'_>) -> Option<PathBuf> {
    env.path("XDG_RUNTIME_DIR").filter(|dir| !is_foreign(dir))
}

/// The same, or where it would be: `su -` and `cron` leave the variable out.
pub fn runtime_dir(env: &Env<'_>) -> PathBuf {
    own_runtime_dir(env)
        .unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid())))
}

/// The directory of the machine's state directories.
fn machine_states(env: &Env<'_>) -> PathBuf {
    match launchd_root(env) {
        Some(root) => root.join(MACHINE_STATES_OF_LAUNCHD),
        None => MACHINE_STATES.into(),
    }
}

/// The directory of a user's state directories.
fn user_states(env: &Env<'_>) -> PathBuf {
    let home = env.path("HOME");
    let base = if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library/Application Support"))
    } else {
        env.path("XDG_STATE_HOME")
            .or_else(|| home.map(|home| home.join(".local/state")))
    };
    base.map_or_else(|| MACHINE_STATES.into(), |base| base.join("gateway"))
}

/// Whether a directory, or what a socket's path leads to, belongs to another user.
pub fn is_foreign(dir: &Path) -> bool {
    std::fs::metadata(dir).is_ok_and(|meta| meta.uid() != nix::unistd::geteuid().as_raw())
}

/// systemd separates several directories with colons; the first is the one our unit names.
fn first_of_list(list: Option<PathBuf>) -> Option<PathBuf> {
    let list = list?.into_os_string().into_string().ok()?;
    list.split(':')
        .find(|dir| !dir.is_empty())
        .map(PathBuf::from)
}

fn socket_in(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(
        pairs: &'static [(&'static str, &'static str)],
    ) -> impl Fn(&str) -> Option<std::ffi::OsString> {
        move |name| {
            let (_, value) = pairs.iter().find(|(key, _)| *key == name)?;
            Some((*value).into())
        }
    }

    #[test]
    fn a_service_uses_what_systemd_gives_it() {
        let env = env(&[
            ("STATE_DIRECTORY", "/var/lib/gateway/a:/x"),
            ("RUNTIME_DIRECTORY", "/run/gateway/a"),
            ("HOME", "/root"),
        ]);
        let paths = Paths::of_process(&Env(&env), "a", None);
        assert_eq!(paths.state, Path::new("/var/lib/gateway/a"));
        assert_eq!(paths.control, Path::new("/run/gateway/a/control.sock"));
    }

    #[test]
    fn a_runtime_directory_of_another_user_is_not_searched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| path.clone().into_os_string());
        let socket = path.join("gateway/a/control.sock");
        assert!(Paths::candidates(&Env(&env), "a", None).contains(&socket));
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(54_321), None).unwrap();
            std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
            std::fs::write(&socket, "").unwrap();
            assert!(!Paths::candidates(&Env(&env), "a", None).contains(&socket));
            let found = Paths::instances(&Env(&env), Some(Scope::User));
            assert!(found.iter().all(|(_, control)| *control != socket));
        }
    }

    #[test]
    fn a_user_without_runtime_directory_has_the_socket_in_the_state_directory() {
        let env = env(&[("HOME", "/home/u")]);
        let paths = Paths::of_process(&Env(&env), "a", None);
        assert_eq!(
            paths.control,
            Path::new("/home/u/.local/state/gateway/a/run/control.sock")
        );
        assert!(Paths::candidates(&Env(&env), "a", None).contains(&paths.control));
    }
}
