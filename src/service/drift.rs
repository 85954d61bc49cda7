//! What doctor asks about the files of an installed gateway: which there are, and whether this
//! version would write them as they are.

use std::path::PathBuf;

use super::layout::{Installed, Layout};
use super::provenance::diff;
use super::sandbox::Sandbox;
use super::unit_text::{RunAs, UnitPlan, UnitSubject, default_socket};
use crate::config::{Env, EnvFilePlaces};

/// Every file that would be this unit, in the order in which systemd prefers them: all but the
/// first are shadowed.
pub fn copies(env: &Env<'_>, unit: &Installed) -> Vec<PathBuf> {
    let Ok(layout) = Layout::of_service(unit, env) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = Vec::new();
    for path in layout
        .unit_dirs()
        .map(|dir| dir.join(&unit.unit))
        .filter(|path| path.exists())
    {
        let same = |known: &PathBuf| {
            known
                .canonicalize()
                .ok()
                .is_some_and(|known| path.canonicalize().is_ok_and(|path| path == known))
        };
        if !found.iter().any(same) {
            found.push(path);
        }
    }
    found
}

/// How a unit that we wrote differs from what this version writes for the same request; none where
/// it does not.
///
/// User and sockets of the request are read back from the text. Every sandbox and kind of port is
/// tried, and files of variables and what may be written are not compared: only the request knows them.
pub fn outdated(unit: &Installed, text: &str, systemd: u32) -> Option<String> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(str::to_owned)
    };
    let program = value("ExecStart")?;
    let end = program
        .find("/gateway\"")
        .or_else(|| program.find("/gateway "))?;
    let bin_dir = PathBuf::from(
        program[..end]
            .trim_start_matches([':', '"'])
            .replace("%%", "%"),
    );
    let plan = UnitPlan {
        subject: UnitSubject::Instance(unit.instance.clone()),
        scope: unit.scope,
        bin_dir,
        run_as: RunAs::of_unit(text).unwrap_or(RunAs::Dynamic),
        sockets: if unit.socket.is_some() {
            default_socket().sockets
        } else {
            Vec::new()
        },
        systemd,
        ..UnitPlan::default()
    };
    let text = without_own_files(text);
    let mut nearest: Option<String> = None;
    for sandbox in [Sandbox::App, Sandbox::Strict, Sandbox::Off] {
        for low_port in [false, true] {
            let written = UnitPlan {
                sandbox,
                low_port,
                ..plan.clone()
            }
            .service()
            .ok()?;
            if written == text {
                return None;
            }
            let change = diff(&unit.path, &text, &written);
            if nearest
                .as_ref()
                .is_none_or(|known| change.len() < known.len())
            {
                nearest = Some(change);
            }
        }
    }
    nearest
}

/// A unit without its files of variables and what it may write.
fn without_own_files(text: &str) -> String {
    let credential = format!("LoadCredential={}", EnvFilePlaces::credential(""));
    text.split_inclusive('\n')
        .filter(|line| !line.starts_with("EnvironmentFile="))
        .filter(|line| !line.starts_with("ReadWritePaths="))
        .filter(|line| !line.starts_with(&credential))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::paths::Scope;

    fn installed(socket: bool) -> Installed {
        Installed {
            instance: "gateway".into(),
            scope: Scope::System,
            manager: crate::service::ServiceManagerKind::Systemd,
            unit: "gateway.service".into(),
            path: "/etc/systemd/system/gateway.service".into(),
            socket: socket.then(|| "gateway.socket".into()),
        }
    }

    #[test]
    fn what_this_version_writes_is_not_outdated_whatever_was_requested() {
        for sandbox in [Sandbox::App, Sandbox::Strict, Sandbox::Off] {
            for (run_as, low_port, dir, file) in [
                (RunAs::Dynamic, false, "/usr/bin", None),
                (
                    RunAs::User("app".into()),
                    true,
                    "/opt/my $HOME 100%i",
                    Some(PathBuf::from("/etc/a b%c")),
                ),
            ] {
                let plan = UnitPlan {
                    sandbox,
                    run_as,
                    low_port,
                    bin_dir: dir.into(),
                    credentials: Vec::from_iter(file.clone().map(|file| ("main".to_owned(), file))),
                    env_file: file,
                    systemd: 252,
                    ..UnitPlan::default()
                };
                let text = plan.service().unwrap();
                assert_eq!(outdated(&installed(false), &text, 252), None, "{text}");
                let older = text.replace("KillMode=mixed", "KillMode=process");
                let change = outdated(&installed(false), &older, 252).unwrap();
                assert!(
                    change.contains("-KillMode=process\n+KillMode=mixed\n"),
                    "{change}"
                );
                assert!(
                    outdated(&installed(false), &text, 256).is_some(),
                    "systemd can do more since"
                );
            }
        }
        let plan = UnitPlan {
            systemd: 252,
            ..default_socket()
        };
        assert_eq!(
            outdated(&installed(true), &plan.service().unwrap(), 252),
            None
        );
    }
}
