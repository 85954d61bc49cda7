//! What an inspection of an installed gateway asks: every property of its unit, and where its state
//! lies.

use std::collections::HashMap;
use std::path::PathBuf;

use zbus::names::InterfaceName;
use zbus::{Connection, OwnedVariant, Variant};

use super::layout::{Installed, Layout};
use crate::config::Env;

/// Everything that a manager says of a unit, by the names of its D-Bus interfaces.
#[derive(Clone, Debug, Default)]
pub struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    /// Asks for the properties of a unit, those of its type included.
    pub(super) async fn read(
        connection: &Connection,
        path: zbus::OwnedObjectPath,
        unit: &str,
    ) -> zbus::Result<Self> {
        let proxy = zbus::fdo::PropertiesProxy::builder(connection)
            .destination("org.freedesktop.systemd1")
            .path(path)
            .build()
            .await?;
        let mut all = HashMap::new();
        let kind = if unit.ends_with(".socket") {
            "Socket"
        } else {
            "Service"
        };
        for interface in ["Unit", kind] {
            let name = InterfaceName::try_from(format!("org.freedesktop.systemd1.{interface}"))?;
            all.extend(proxy.get_all(name).await?);
        }
        Ok(Self(all))
    }

    /// A text; empty where there is none of that name.
    pub fn text(&self, name: &str) -> String {
        self.0
            .get(name)
            .and_then(|value| text(value))
            .unwrap_or_default()
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
        matches!(
            self.0.get(name).map(|value| &**value),
            Some(Variant::Bool(true))
        )
    }

    /// Several texts.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.items(name).filter_map(text).collect()
    }

    /// The command lines of `ExecStart` and the like, the program's path in front of its arguments.
    pub fn commands(&self, name: &str) -> Vec<(String, Vec<String>)> {
        let command = |value: &Variant<'_>| {
            let Variant::Structure(fields) = value else {
                return None;
            };
            let Variant::Array(words) = fields.fields().get(1)? else {
                return None;
            };
            Some((
                text(fields.fields().first()?)?,
                words.iter().filter_map(text).collect(),
            ))
        };
        self.items(name).filter_map(command).collect()
    }

    /// `EnvironmentFiles`: each path, and whether it may be missing.
    pub fn files(&self, name: &str) -> Vec<(PathBuf, bool)> {
        let file = |value: &Variant<'_>| {
            let Variant::Structure(fields) = value else {
                return None;
            };
            let optional = matches!(fields.fields().get(1)?, Variant::Bool(true));
            Some((PathBuf::from(text(fields.fields().first()?)?), optional))
        };
        self.items(name).filter_map(file).collect()
    }

    /// Why the unit was not loaded, in systemd's words; empty where it was.
    pub fn load_error(&self) -> String {
        match self.0.get("LoadError").map(|value| &**value) {
            Some(Variant::Structure(error)) => {
                error.fields().get(1).and_then(text).unwrap_or_default()
            }
            _ => String::new(),
        }
    }

    /// The exit codes of a set like `RestartPreventExitStatus`, signals left out.
    pub fn exit_codes(&self, name: &str) -> Vec<i32> {
        let Some(Variant::Structure(sets)) = self.0.get(name).map(|value| &**value) else {
            return Vec::new();
        };
        let Some(Variant::Array(codes)) = sets.fields().first() else {
            return Vec::new();
        };
        codes
            .iter()
            .filter_map(|code| {
                if let Variant::I32(code) = code {
                    Some(*code)
                } else {
                    None
                }
            })
            .collect()
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
    Layout::of(unit.scope, env)
        .map(|layout| layout.leftovers(&unit.instance))
        .unwrap_or_default()
}
