//! Whether the service's user gets at what the service needs. It is tried before anything is written:
//! a server that cannot enter its directory says no more than "permission denied".

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, geteuid};

use super::account::credentials_of;
use crate::config::{Config, SidecarSpec, regular_file};
use crate::os::file_access::{self, Access, Barrier};
use crate::service::error::ServiceError;
use crate::service::sandbox::Sandbox;
use crate::service::unit_text::{RunAs, UnitPlan};
use crate::state::paths::Scope;
use crate::text::shell;

/// The longest first line of a script that Linux reads (BINPRM_BUF_SIZE).
const FIRST_LINE_MAX: u64 = 256;

/// What a service needs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Need {
    path: PathBuf,
    access: Access,
    /// As in "the working directory of main".
    what: String,
}

/// Refuses a service whose user does not get at what it needs, with what is in the way and a command
/// that works.
///
/// # Errors
/// See there.
pub(super) fn check(
    unit: &UnitPlan,
    config: &Config,
    writable: &[PathBuf],
) -> Result<(), ServiceError> {
    // A user's service runs as who installs it; and nobody but root can try for others.
    if unit.scope == Scope::User || !geteuid().is_root() {
        return Ok(());
    }
    let needs = needs(unit, config, writable)?;
    let barriers = barriers(&unit.run_as, unit.sandbox, &needs)?;
    if barriers.is_empty() {
        return Ok(());
    }
    let who = who(&unit.run_as);
    let lines: BTreeSet<String> = (barriers.iter())
        .map(|(need, barrier)| in_the_way(&who, need, barrier))
        .collect();
    let mut lines = lines.into_iter();
    let first = lines.next().unwrap_or_default();
    Err(
        ServiceError::failed(format!("{first}; nothing was changed"))
            .lines(lines)
            .next(ways_out(unit, config, &needs, &barriers)),
    )
}

/// Who does not get past what.
fn barriers(
    run_as: &RunAs,
    sandbox: Sandbox,
    needs: &[Need],
) -> Result<Vec<(Need, Barrier)>, ServiceError> {
    let user = credentials_of(run_as)?;
    let mut found = Vec::new();
    for need in needs {
        let barrier = file_access::barrier(&user, sandbox == Sandbox::Off, &need.path, need.access);
        let barrier = barrier.map_err(|error| {
            ServiceError::failed(format!("cannot look with another user's eyes: {error}"))
        })?;
        found.extend(barrier.map(|barrier| (need.clone(), barrier)));
    }
    Ok(found)
}

/// "ada cannot enter /root (mode 700, of root), on the way to /root/site: the working directory".
fn in_the_way(who: &str, need: &Need, barrier: &Barrier) -> String {
    let Barrier { path, access } = barrier;
    let mut text = format!("{who} cannot {access} {}", path.display());
    if let Ok(facts) = std::fs::metadata(path) {
        let owner = match User::from_uid(Uid::from_raw(facts.uid())) {
            Ok(Some(user)) => user.name,
            _ => facts.uid().to_string(),
        };
        let group = match Group::from_gid(Gid::from_raw(facts.gid())) {
            Ok(Some(group)) => group.name,
            _ => facts.gid().to_string(),
        };
        let mode = facts.mode() & 0o7777;
        let _ = write!(text, " (mode {mode:03o}, {owner}:{group})");
    }
    let what = &need.what;
    let _ = match *path == need.path {
        true => write!(text, ": {what}"),
        false => write!(text, ", on the way to {}: {what}", need.path.display()),
    };
    text
}

pub(super) fn who(run_as: &RunAs) -> String {
    match run_as {
        RunAs::Dynamic => "the service's temporary user".to_owned(),
        RunAs::User(name) => name.clone(),
    }
}

/// Commands that work, one a line: another user who gets past everything, or another place.
fn ways_out(
    unit: &UnitPlan,
    config: &Config,
    needs: &[Need],
    barriers: &[(Need, Barrier)],
) -> String {
    let owner = |path: &Path| {
        let uid = Uid::from_raw(std::fs::metadata(path).ok()?.uid());
        Some(User::from_uid(uid).ok()??.name)
    };
    let places = barriers
        .iter()
        .flat_map(|(need, barrier)| [&need.path, &barrier.path]);
    let mut names: Vec<String> = places.filter_map(|path| owner(path)).collect();
    // Root last: a server needs no such rights.
    names.sort_by_key(|name| name == "root");
    names.push("root".to_owned());
    let mut tried = BTreeSet::new();
    names.retain(|name| tried.insert(name.clone()));
    let passes = |name: &String, sandbox| {
        let barriers = barriers_of(name, sandbox, needs);
        barriers.is_some_and(|barriers| barriers.is_empty())
    };
    let mut ways: Vec<String> = (names.iter())
        .filter(|name| passes(name, unit.sandbox))
        .map(|name| format!("the same command with --run-as {name}"))
        .collect();
    if ways.is_empty() && passes(&"root".to_owned(), Sandbox::Off) {
        ways.push("the same command with --run-as root --sandbox off".to_owned());
    }
    let cwds = config.sidecar.values().filter_map(|spec| spec.cwd.as_ref());
    for cwd in cwds {
        let entered = |(need, barrier): &(Need, Barrier)| {
            barrier.access == Access::Enter && need.path.starts_with(cwd)
        };
        if barriers.iter().any(entered)
            && let Some(name) = cwd
                .file_name()
                .filter(|_| cwd.parent() != Some(Path::new("/")))
        {
            let (from, to) = (shell::word(cwd), shell::word(Path::new("/srv").join(name)));
            ways.push(format!("mv {from} {to}   (and install from there)"));
        }
    }
    let program = unit.bin_dir.join("gateway");
    if barriers.iter().any(|(need, _)| need.path == program) {
        let from = shell::word(&unit.bin_dir);
        ways.push(format!(
            "install -t /usr/local/bin {from}/gateway {from}/gatewayctl   (and install with that gatewayctl)"
        ));
    }
    ways.dedup();
    ways.join("\n")
}

fn barriers_of(name: &str, sandbox: Sandbox, needs: &[Need]) -> Option<Vec<(Need, Barrier)>> {
    barriers(&RunAs::User(name.to_owned()), sandbox, needs).ok()
}

/// All that the service needs.
fn needs(
    unit: &UnitPlan,
    config: &Config,
    writable: &[PathBuf],
) -> Result<Vec<Need>, ServiceError> {
    let mut needs = vec![Need {
        path: unit.bin_dir.join("gateway"),
        access: Access::Run,
        what: "the program of the service".to_owned(),
    }];
    for (name, spec) in &config.sidecar {
        needs.extend(of_sidecar(name, spec));
    }
    for path in writable {
        if !path.exists() {
            let owner = match &unit.run_as {
                RunAs::User(user) => format!("-o {} ", shell::word(user)),
                RunAs::Dynamic => String::new(),
            };
            let shown = path.display();
            let next = format!("install -d {owner}{}", shell::word(path));
            return Err(
                ServiceError::usage(format!("--writable {shown}: it is not there")).next(next),
            );
        }
        needs.push(Need {
            path: path.clone(),
            access: Access::Write,
            what: "what the server writes to (--writable)".to_owned(),
        });
    }
    Ok(needs)
}

fn of_sidecar(name: &str, spec: &SidecarSpec) -> Vec<Need> {
    let need = |path: PathBuf, access, what: &str| Need {
        path,
        access,
        what: format!("the {what} of the server {name}"),
    };
    let cwd = spec.cwd.clone().unwrap_or_else(|| "/".into());
    let mut needs = vec![need(cwd.clone(), Access::Enter, "working directory")];
    let mut words = spec.command.iter();
    let program = words.next().and_then(|word| find(word, &cwd, spec));
    if let Some(program) = program {
        if let Some(interpreter) = interpreter(&program, &cwd, spec) {
            needs.push(need(program.clone(), Access::Read, "command"));
            needs.push(need(interpreter, Access::Run, "interpreter of the command"));
        }
        needs.push(need(program, Access::Run, "command"));
    }
    // What an interpreter is given first is most likely its script.
    let script = words.find(|word| !word.starts_with('-'));
    let script = script.map(|word| cwd.join(word));
    if let Some(script) = script.filter(|script| script.is_file()) {
        needs.push(need(script, Access::Read, "script"));
    }
    needs
}

/// The file of a program, as a server's start finds it.
fn find(word: &str, cwd: &Path, spec: &SidecarSpec) -> Option<PathBuf> {
    if word.contains('/') {
        return Some(cwd.join(word));
    }
    let path = spec.env.get("PATH")?;
    let mut places = std::env::split_paths(path).map(|dir| cwd.join(dir).join(word));
    places.find(|place| place.is_file())
}

/// The program that runs a script, by its first line.
fn interpreter(program: &Path, cwd: &Path, spec: &SidecarSpec) -> Option<PathBuf> {
    let mut line = Vec::new();
    let file = regular_file::open(program).ok()?;
    file.take(FIRST_LINE_MAX).read_to_end(&mut line).ok()?;
    let line = line.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let first = words.next()?;
    match Path::new(first).file_name()? == "env" {
        true => find(
            words.find(|word| !word.starts_with('-') && !word.contains('='))?,
            cwd,
            spec,
        ),
        false => Some(first.into()),
    }
}

/// What to know of a working directory to which the service cannot write, where nothing says that it
/// does not want to; none for the root directory, which nobody means.
pub(super) fn note_read_only(unit: &UnitPlan, config: &Config) -> Option<String> {
    if unit.scope == Scope::User || !geteuid().is_root() || !unit.writable.is_empty() {
        return None;
    }
    let mut cwds = config.sidecar.values().filter_map(|spec| spec.cwd.as_ref());
    let cwd = cwds.find(|cwd| cwd.parent().is_some() && !may_write(unit, cwd))?;
    let shown = cwd.display();
    let user = match &unit.run_as {
        RunAs::Dynamic => "--run-as USER ".to_owned(),
        RunAs::User(_) => String::new(),
    };
    Some(format!(
        "{} cannot write to {shown}; a server that does, for a database or uploads, needs {user}--writable DIR, with a directory of that user",
        who(&unit.run_as)
    ))
}

fn may_write(unit: &UnitPlan, path: &Path) -> bool {
    let own = |dir: &str| path.starts_with(dir);
    let read_only = unit.is_dynamic()
        || match unit.sandbox {
            Sandbox::Off => false,
            Sandbox::App => ["/usr", "/boot", "/efi", "/etc"].into_iter().any(own),
            Sandbox::Strict => true,
        };
    let user = credentials_of(&unit.run_as);
    let capable = unit.sandbox == Sandbox::Off;
    let free = user.is_ok_and(|user| {
        let barrier = file_access::barrier(&user, capable, path, Access::Write);
        barrier.is_ok_and(|barrier| barrier.is_none())
    });
    free && !read_only
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_needs_its_directory_its_command_and_what_runs_that() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("tool"), "#!/usr/bin/env -S node --x\n").unwrap();
        std::fs::write(path("node"), "").unwrap();
        std::fs::write(path("app.js"), "").unwrap();
        let mut spec = SidecarSpec::new(["./tool", "--flag", "app.js"].map(str::to_owned).into());
        spec.cwd = Some(dir.path().to_owned());
        let path_variable = dir.path().display().to_string();
        spec.env.insert("PATH".to_owned(), path_variable);
        let needs: Vec<_> = of_sidecar("main", &spec)
            .into_iter()
            .map(|need| (need.path, need.access))
            .collect();
        let tool = path("./tool");
        assert_eq!(
            needs,
            [
                (dir.path().to_owned(), Access::Enter),
                (tool.clone(), Access::Read),
                (path("node"), Access::Run),
                (tool, Access::Run),
                (path("app.js"), Access::Read),
            ]
        );
    }
}
