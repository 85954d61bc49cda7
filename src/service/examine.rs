//! What an inspection of an installed gateway asks: every property of its unit, its files, and the few things that are safe to mend.

use std::collections::HashMap;
use std::path::PathBuf;

use zbus::names::InterfaceName;
use zbus::{Connection, OwnedVariant, Variant};

use super::error::ServiceError;
use super::layout::{Installed, Layout};
use super::linger;
use super::provenance::diff;
use super::sandbox::Sandbox;
use super::unit::{RunAs, Subject, UnitPlan, default_socket};
use crate::config::Env;
use crate::state::paths::Scope;

/// Everything that a manager says of a unit, by the names of its D-Bus interfaces.
#[derive(Clone, Debug, Default)]
pub struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    /// Asks for the properties of a unit, those of its type included.
    pub(super) async fn read(connection: &Connection, path: zbus::OwnedObjectPath, unit: &str) -> zbus::Result<Self> {
        let proxy = zbus::fdo::PropertiesProxy::builder(connection).destination("org.freedesktop.systemd1").path(path).build().await?;
        let mut all = HashMap::new();
        let kind = if unit.ends_with(".socket") { "Socket" } else { "Service" };
        for interface in ["Unit", kind] {
            let name = InterfaceName::try_from(format!("org.freedesktop.systemd1.{interface}"))?;
            all.extend(proxy.get_all(name).await?);
        }
        Ok(Self(all))
    }

    /// A text; empty where there is none of that name.
    pub fn text(&self, name: &str) -> String {
        self.0.get(name).and_then(|value| text(value)).unwrap_or_default()
    }

    /// A number; 0 where there is none of that name.
    pub fn number(&self, name: &str) -> u64 {
        match self.0.get(name).map(|value| &**value) {
            Some(Variant::U64(number)) => *number,
            Some(Variant::U32(number)) => u64::from(*number),
            Some(Variant::I32(number)) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        }
    }

    /// A switch; off where there is none of that name.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.0.get(name).map(|value| &**value), Some(Variant::Bool(true)))
    }

    /// Several texts.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.items(name).filter_map(text).collect()
    }

    /// The command lines of `ExecStart` and the like, the program's path in front of its arguments.
    pub fn commands(&self, name: &str) -> Vec<(String, Vec<String>)> {
        let command = |value: &Variant<'_>| {
            let Variant::Structure(fields) = value else { return None };
            let Variant::Array(words) = fields.fields().get(1)? else { return None };
            Some((text(fields.fields().first()?)?, words.iter().filter_map(text).collect()))
        };
        self.items(name).filter_map(command).collect()
    }

    /// `EnvironmentFiles`: each path, and whether it may be missing.
    pub fn files(&self, name: &str) -> Vec<(PathBuf, bool)> {
        let file = |value: &Variant<'_>| {
            let Variant::Structure(fields) = value else { return None };
            let optional = matches!(fields.fields().get(1)?, Variant::Bool(true));
            Some((PathBuf::from(text(fields.fields().first()?)?), optional))
        };
        self.items(name).filter_map(file).collect()
    }

    /// Why the unit was not loaded, in systemd's words; empty where it was.
    pub fn load_error(&self) -> String {
        match self.0.get("LoadError").map(|value| &**value) {
            Some(Variant::Structure(error)) => error.fields().get(1).and_then(text).unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// The exit codes of a set like `RestartPreventExitStatus`, signals left out.
    pub fn exit_codes(&self, name: &str) -> Vec<i32> {
        let Some(Variant::Structure(sets)) = self.0.get(name).map(|value| &**value) else { return Vec::new() };
        let Some(Variant::Array(codes)) = sets.fields().first() else { return Vec::new() };
        codes.iter().filter_map(|code| if let Variant::I32(code) = code { Some(*code) } else { None }).collect()
    }

    fn items(&self, name: &str) -> impl Iterator<Item = &Variant<'static>> {
        let array = match self.0.get(name).map(|value| &**value) {
            Some(Variant::Array(array)) => Some(array),
            _ => None,
        };
        array.into_iter().flat_map(|array| array.iter())
    }
}

fn text(value: &Variant<'_>) -> Option<String> {
    match value {
        Variant::Str(text) => Some(text.to_string()),
        Variant::ObjectPath(path) => Some(path.to_string()),
        _ => None,
    }
}

/// Where the state of an installed gateway may lie, the likeliest first.
pub fn state_dirs(env: &Env<'_>, unit: &Installed) -> Vec<PathBuf> {
    Layout::of(unit.scope, env).map(|layout| layout.leftovers(&unit.instance)).unwrap_or_default()
}

/// Where install writes the configuration of this instance.
pub fn config_file(env: &Env<'_>, unit: &Installed) -> Option<PathBuf> {
    Layout::of(unit.scope, env).ok().map(|layout| layout.config_file(&unit.instance))
}

/// Where install writes units; files elsewhere came with a package or by hand.
pub fn unit_dir(env: &Env<'_>, scope: Scope) -> Option<PathBuf> {
    Layout::of(scope, env).ok().map(|layout| layout.units)
}

/// Every file that would be this unit, in the order in which systemd prefers them: all but the first are shadowed.
pub fn copies(env: &Env<'_>, unit: &Installed) -> Vec<PathBuf> {
    let Ok(layout) = Layout::of(unit.scope, env) else { return Vec::new() };
    let mut found: Vec<PathBuf> = Vec::new();
    for path in layout.unit_dirs().map(|dir| dir.join(&unit.unit)).filter(|path| path.exists()) {
        let same = |known: &PathBuf| known.canonicalize().ok().is_some_and(|known| path.canonicalize().is_ok_and(|path| path == known));
        if !found.iter().any(same) {
            found.push(path);
        }
    }
    found
}

/// Whether the caller's manager stays up without a session.
pub fn lingers() -> bool {
    linger::is_on()
}

/// Turns lingering on, and remembers that it was us. What to do instead, where that is not permitted.
///
/// # Errors
/// When the note cannot be written.
pub async fn turn_linger_on(env: &Env<'_>) -> Result<Option<String>, ServiceError> {
    linger::turn_on(&Layout::of(Scope::User, env)?).await
}

/// How a unit that we wrote differs from what this version writes for the same wishes; none where it does not.
///
/// The wishes are read back from the text: the user, the sockets. Of sandboxes and ports every kind is tried, and files of variables
/// are left out of the comparison: they are wishes only.
pub fn outdated(unit: &Installed, text: &str, systemd: u32) -> Option<String> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned);
    let program = value("ExecStart")?;
    let end = program.find("/gateway\"").or_else(|| program.find("/gateway "))?;
    let bin_dir = PathBuf::from(program[..end].trim_start_matches([':', '"']).replace("%%", "%"));
    let plan = UnitPlan {
        subject: Subject::Instance(unit.instance.clone()),
        scope: unit.scope,
        bin_dir,
        run_as: value("User").map_or(RunAs::Dynamic, |name| RunAs::User(name.replace("%%", "%"))),
        sockets: if unit.socket.is_some() { default_socket().sockets } else { Vec::new() },
        systemd,
        ..UnitPlan::default()
    };
    let text = without_variables(text);
    let mut nearest: Option<String> = None;
    for sandbox in [Sandbox::App, Sandbox::Strict, Sandbox::Off] {
        for low_port in [false, true] {
            let written = UnitPlan { sandbox, low_port, ..plan.clone() }.service().ok()?;
            if written == text {
                return None;
            }
            let change = diff(&unit.path, &text, &written);
            if nearest.as_ref().is_none_or(|known| change.len() < known.len()) {
                nearest = Some(change);
            }
        }
    }
    nearest
}

/// A unit without its files of variables.
fn without_variables(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.starts_with("EnvironmentFile=")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(socket: bool) -> Installed {
        Installed {
            instance: "gateway".into(),
            scope: Scope::System,
            unit: "gateway.service".into(),
            path: "/etc/systemd/system/gateway.service".into(),
            socket: socket.then(|| "gateway.socket".into()),
        }
    }

    #[test]
    fn what_this_version_writes_is_not_outdated_whatever_was_wished() {
        for sandbox in [Sandbox::App, Sandbox::Strict, Sandbox::Off] {
            for (run_as, low_port, dir, file) in [
                (RunAs::Dynamic, false, "/usr/bin", None),
                (RunAs::User("app".into()), true, "/opt/my $HOME 100%i", Some(PathBuf::from("/etc/a b%c"))),
            ] {
                let plan = UnitPlan { sandbox, run_as, low_port, bin_dir: dir.into(), env_file: file, systemd: 252, ..UnitPlan::default() };
                let text = plan.service().unwrap();
                assert_eq!(outdated(&installed(false), &text, 252), None, "{text}");
                let older = text.replace("KillMode=mixed", "KillMode=process");
                let change = outdated(&installed(false), &older, 252).unwrap();
                assert!(change.contains("-KillMode=process\n+KillMode=mixed\n"), "{change}");
                assert!(outdated(&installed(false), &text, 256).is_some(), "systemd can do more since");
            }
        }
        let plan = UnitPlan { systemd: 252, ..default_socket() };
        assert_eq!(outdated(&installed(true), &plan.service().unwrap(), 252), None);
    }
}
