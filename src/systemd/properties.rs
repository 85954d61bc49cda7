//! The properties of a unit.

use std::collections::HashMap;

use zbus::names::InterfaceName;
use zbus::{Connection, OwnedVariant};

use super::bus;

/// A command of a unit, as D-Bus has it: program, arguments, whether a failure is ignored, and when
/// it last began and ended and how.
type ExecCommand = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

/// All properties of a unit, by their names in D-Bus.
#[derive(Clone, Debug, Default)]
pub struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    /// Asks for the properties of a service or a socket.
    pub(crate) async fn read(
        connection: &Connection,
        path: zbus::OwnedObjectPath,
    ) -> zbus::Result<Self> {
        let proxy = bus::properties(connection, path).await?;
        let of = |kind: &str| InterfaceName::try_from(format!("org.freedesktop.systemd1.{kind}"));
        let mut all = Self(proxy.get_all(of("Unit")?).await?);
        let kind = if all.is_socket() { "Socket" } else { "Service" };
        all.0.extend(proxy.get_all(of(kind)?).await?);
        Ok(all)
    }

    pub fn is_socket(&self) -> bool {
        self.text("Id").ends_with(".socket")
    }

    fn get<T: TryFrom<OwnedVariant>>(&self, name: &str) -> Option<T> {
        T::try_from(self.0.get(name)?.clone()).ok()
    }

    /// A text; empty where there is none of that name.
    pub fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default()
    }

    /// Several texts.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.get(name).unwrap_or_default()
    }

    /// A number; 0 where there is none of that name, or none that fits.
    pub fn number<N: TryFrom<u64> + Default>(&self, name: &str) -> N {
        self.get::<u64>(name)
            .or_else(|| self.get::<u32>(name).map(u64::from))
            .or_else(|| u64::try_from(self.get::<i32>(name)?).ok())
            .and_then(|number| N::try_from(number).ok())
            .unwrap_or_default()
    }

    /// A switch; off where there is none of that name.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).unwrap_or(false)
    }

    /// What the manager does with it now, if anything.
    pub(crate) fn job(&self) -> Option<zbus::OwnedObjectPath> {
        let (number, path): (u32, zbus::OwnedObjectPath) = self.get("Job")?;
        (number != 0).then_some(path)
    }

    /// The program of ExecStart=.
    pub fn program(&self) -> Option<String> {
        self.command().map(|(program, _)| program)
    }

    /// The program of ExecStart= and its arguments, the name first.
    pub fn command(&self) -> Option<(String, Vec<String>)> {
        let commands: Vec<ExecCommand> = self.get("ExecStart")?;
        let command = commands.into_iter().next()?;
        Some((command.0, command.1))
    }

    /// The socket units that start it.
    pub fn sockets(&self) -> Vec<String> {
        let mut units = self.texts("TriggeredBy");
        units.retain(|unit| unit.ends_with(".socket"));
        units
    }

    /// EnvironmentFile=: each path, and whether it may be missing.
    pub fn environment_files(&self) -> Vec<(String, bool)> {
        self.get("EnvironmentFiles").unwrap_or_default()
    }

    /// LoadCredential=: each name, and where systemd reads it.
    pub fn credentials(&self) -> Vec<(String, String)> {
        self.get("LoadCredential").unwrap_or_default()
    }

    /// Why the unit was not loaded; empty where it was.
    pub fn load_error(&self) -> String {
        self.get::<(String, String)>("LoadError")
            .map_or_else(String::new, |(_, text)| text)
    }

    /// The exit codes of RestartPreventExitStatus=, without its signals.
    pub fn prevented_exit_codes(&self) -> Vec<i32> {
        self.get::<(Vec<i32>, Vec<i32>)>("RestartPreventExitStatus")
            .map_or_else(Vec::new, |(codes, _)| codes)
    }
}
