//! The state directory: its owner, its file system and what lies in it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::statfs;

use crate::config::Env;
use crate::diagnose::doctor::facts::{ConfigFile, StateDir};
use crate::os::mapped_owner;
use crate::os::platform;
use crate::os::process::{self, Stat};
use crate::service::{self, Installed};
use crate::state::diagnostic_bundle;
use crate::state::owner::{Drainer, Owner};
use crate::state::paths::Paths;
use crate::state::untrusted_file;

/// How long a restart intent is valid.
const INTENT_AGE: Duration = Duration::from_secs(60);

/// Older bundles are not reported.
const DAY: Duration = Duration::from_secs(86_400);

/// How long after its drain time an old gateway process may take to end.
const OVERDUE: Duration = Duration::from_secs(30);

/// Looks at the directory that the command line, a gateway of this user or the configuration names,
/// else at the usual one; none where there is none yet.
pub(super) fn look(
    env: &Env<'_>,
    unit: Option<&Installed>,
    named: Option<PathBuf>,
    keeper: Option<u32>,
    config: &ConfigFile,
    unseen: &mut Vec<String>,
) -> Option<StateDir> {
    let named = named.or_else(|| config.valid.as_ref()?.gateway.state_dir.clone());
    let usual = || match unit {
        Some(unit) => service::state_dirs(env, unit)
            .into_iter()
            .find(|dir| dir.exists()),
        None => Some(Paths::of_process(env, crate::config::DEFAULT_INSTANCE, None).state),
    };
    let dir = named.or_else(usual)?;
    let meta = std::fs::metadata(&dir).ok()?;
    let Ok(names) = untrusted_file::names(&dir) else {
        unseen.push(format!("the state directory {}", dir.display()));
        return None;
    };
    let names: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    let owner = Owner::read(&dir);
    Some(StateDir {
        uid: keeper
            .filter(|uid| mapped_owner::is_owner_by(&dir, &meta, *uid))
            .unwrap_or(meta.uid()),
        keeper: keeper.unwrap_or(meta.uid()),
        mode: meta.permissions().mode() & 0o777,
        poor_file_system: platform::poor_file_system(&dir),
        free: free(&dir),
        owner_lives: owner.as_ref().and_then(Owner::lives),
        set_aside: names
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end == "corrupt"))
            .cloned()
            .collect(),
        intent: intent(&dir),
        overdue: owner
            .as_ref()
            .map(|owner| overdue(&owner.drainers))
            .unwrap_or_default(),
        bundles: bundles(&dir),
        lock_holder: lock_holder(&dir.join("gateway.lock")),
        owner,
        dir,
    })
}

/// Free bytes and inodes in percent; a file system without an inode count has enough.
fn free(dir: &Path) -> Option<(u64, u64)> {
    let found = statfs::statfs(dir).ok()?;
    let percent = |left: u64, of: u64| left.saturating_mul(100).checked_div(of).unwrap_or(100);
    Some((
        percent(found.blocks_available(), found.blocks()),
        percent(found.files_free(), found.files()),
    ))
}

fn age(path: &Path) -> Option<Duration> {
    let written = std::fs::symlink_metadata(path).ok()?.modified().ok()?;
    Some(
        SystemTime::now()
            .duration_since(written)
            .unwrap_or_default(),
    )
}

fn intent(dir: &Path) -> Option<(PathBuf, Duration)> {
    let path = dir.join("restart-intent.json");
    age(&path)
        .filter(|age| *age > INTENT_AGE)
        .map(|age| (path, age))
}

/// Old gateway processes that live past their drain time.
fn overdue(drainers: &[Drainer]) -> Vec<(u32, Duration)> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let late = |drainer: &Drainer| {
        let late = now.checked_sub(Duration::from_millis(drainer.until_ms?))?;
        (late > OVERDUE
            && Stat::read(drainer.pid).is_some_and(|stat| stat.start_time == drainer.start_time))
        .then_some((drainer.pid, late))
    };
    drainers.iter().filter_map(late).collect()
}

fn bundles(dir: &Path) -> Vec<PathBuf> {
    let mut recent: Vec<PathBuf> = diagnostic_bundle::list(dir)
        .into_iter()
        .filter(|path| age(path).is_some_and(|age| age < DAY))
        .collect();
    recent.sort();
    recent.reverse();
    recent
}

/// The process that holds the lock, where it is not a gateway. /proc/locks names it without
/// touching the lock.
fn lock_holder(lock: &Path) -> Option<(u32, String)> {
    let inode = std::fs::metadata(lock).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let held = locks
        .lines()
        .filter(|line| line.contains(" FLOCK "))
        .find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let at = fields.iter().position(|field| *field == "FLOCK")?;
            let (pid, place) = (fields.get(at + 3)?, fields.get(at + 4)?);
            (place.rsplit(':').next()?.parse::<u64>().ok()? == inode)
                .then(|| pid.parse::<u32>().ok())
                .flatten()
        })?;
    // The process that took the lock may have ended; those that inherited it still hold it.
    let holds = |pid: &u32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd"));
        fds.into_iter()
            .flatten()
            .filter_map(|entry| std::fs::metadata(entry.ok()?.path()).ok())
            .any(|meta| meta.ino() == inode && meta.is_file())
    };
    let name = |pid| {
        let program = process::program(pid)?;
        Some(program.file_name()?.to_string_lossy().into_owned())
    };
    let mut first = None;
    for pid in std::iter::once(held).chain(process::all()).filter(holds) {
        let name = name(pid).filter(|name| !name.starts_with("gateway"))?;
        first.get_or_insert((pid, name));
    }
    first
}
