//! Where state and the control socket of an instance lie.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::Env;
use crate::text::words::words;

/// A unix socket path may have 108 bytes on Linux and 104 on macOS, its end included; we stay below
/// both.
const SOCKET_PATH_MAX: usize = 100;

/// The files of one instance.
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
        let state =
            first_of_list(env.path("STATE_DIRECTORY")).unwrap_or_else(|| user_state(env, instance));
        let runtime = first_of_list(env.path("RUNTIME_DIRECTORY")).or_else(|| {
            env.path("XDG_RUNTIME_DIR")
                .map(|dir| dir.join("gateway").join(instance))
        });
        match runtime {
            Some(dir) => Self {
                control: socket_in(&dir),
                state,
            },
            None => Self::in_state_dir(&state),
        }
    }

    /// The paths of an instance with a state directory of its own.
    pub fn in_state_dir(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            control: socket_in(&state.join("run")),
        }
    }

    /// Every place where a control socket of `instance` may be, the likeliest first.
    ///
    /// `system` asks only for the system scope, `user` only for the user's own; neither means both.
    pub fn candidates(env: &Env<'_>, instance: &str, scope: Option<Scope>) -> Vec<PathBuf> {
        roots(env, scope)
            .into_iter()
            .map(|root| root.socket(instance))
            .collect()
    }

    /// The instances that have a control socket, each with the socket's path.
    pub fn instances(env: &Env<'_>, scope: Option<Scope>) -> Vec<(String, PathBuf)> {
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        for root in roots(env, scope) {
            let Ok(entries) = std::fs::read_dir(&root.dir) else {
                continue;
            };
            for entry in entries.flatten() {
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                    continue;
                };
                let socket = root.socket(&name);
                if socket.exists() && !found.iter().any(|(_, path)| *path == socket) {
                    found.push((name, socket));
                }
            }
        }
        found.sort();
        found
    }
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

struct Root {
    dir: PathBuf,
    in_state: bool,
}

impl Root {
    fn socket(&self, instance: &str) -> PathBuf {
        let dir = self.dir.join(instance);
        socket_in(&if self.in_state { dir.join("run") } else { dir })
    }
}

fn roots(env: &Env<'_>, scope: Option<Scope>) -> Vec<Root> {
    let mut roots = Vec::new();
    if scope != Some(Scope::System) {
        if let Some(dir) = env.path("XDG_RUNTIME_DIR") {
            roots.push(Root {
                dir: dir.join("gateway"),
                in_state: false,
            });
        } else {
            let dir = PathBuf::from(format!("/run/user/{}/gateway", nix::unistd::geteuid()));
            roots.push(Root {
                dir,
                in_state: false,
            });
        }
        let mut dir = user_state(env, "");
        dir.pop();
        roots.push(Root {
            dir: dir.join("gateway"),
            in_state: true,
        });
    }
    if scope != Some(Scope::User) {
        roots.push(Root {
            dir: PathBuf::from("/run/gateway"),
            in_state: false,
        });
    }
    roots
}

fn user_state(env: &Env<'_>, instance: &str) -> PathBuf {
    let home = env.path("HOME");
    let base = if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library/Application Support"))
    } else {
        env.path("XDG_STATE_HOME")
            .or_else(|| home.map(|home| home.join(".local/state")))
    };
    base.unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("gateway")
        .join(instance)
}

/// systemd separates several directories with colons; the first is the one our unit names.
fn first_of_list(list: Option<PathBuf>) -> Option<PathBuf> {
    let list = list?.into_os_string().into_string().ok()?;
    list.split(':')
        .find(|dir| !dir.is_empty())
        .map(PathBuf::from)
}

fn socket_in(dir: &Path) -> PathBuf {
    let path = dir.join("control.sock");
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return path;
    }
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let name: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    std::env::temp_dir().join(format!("gateway-{}-{name}.sock", nix::unistd::geteuid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(
        pairs: &'static [(&'static str, &'static str)],
    ) -> impl Fn(&str) -> Option<std::ffi::OsString> {
        move |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).into())
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
    fn a_user_without_runtime_directory_has_the_socket_in_the_state_directory() {
        let env = env(&[("HOME", "/home/u")]);
        let paths = Paths::of_process(&Env(&env), "a", None);
        assert_eq!(
            paths.control,
            Path::new("/home/u/.local/state/gateway/a/run/control.sock")
        );
        assert!(Paths::candidates(&Env(&env), "a", None).contains(&paths.control));
    }

    #[test]
    fn a_long_state_directory_still_gets_a_socket_that_fits() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        let path = Paths::in_state_dir(&long).control;
        assert!(
            path.as_os_str().len() <= SOCKET_PATH_MAX,
            "{}",
            path.display()
        );
        assert_eq!(path, Paths::in_state_dir(&long).control);
    }
}
