//! The unit: its files, and what its manager reports.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::environment_file::Secrets;
use crate::config::{Env, dotenv, regular_file};
use crate::diagnose::doctor::unit_facts::{
    InstalledUnit, UnitEnvFile, UnitFile, UnitLine, UnitProperties,
};
use crate::service::drift;
use crate::service::linger;
use crate::service::manager::Manager;
use crate::service::provenance::Written;
use crate::service::{Installed, Layout, Rights, ServiceError, changed};
use crate::state::paths::Scope;
use crate::systemd::{Properties, WaitsFor, journal};
use crate::text::redact::{MASK, Redactor};

/// A longer unit or drop-in, in bytes, is not read.
const UNIT_MAX: u64 = 1024 * 1024;

/// A longer environment file is not read.
const ENV_FILE_MAX: u64 = 1024 * 1024;

/// How many lines of journald about one service are kept.
const SUPPRESSED_SHOWN: usize = 3;

/// `config_read_at` is when the gateway read its configuration, as it says.
pub(super) async fn look(
    env: &Env<'_>,
    installed: &Installed,
    config_read_at: Option<&str>,
) -> InstalledUnit {
    let (asked, unreachable) = match ask(env, installed).await {
        Ok(asked) => (asked, None),
        Err(error) => (Default::default(), Some(error.message)),
    };
    let (properties, raw): (UnitProperties, Properties) = asked;
    let written = Written::at(&installed.path).unwrap_or(Written::Absent);
    let outdated = match (&written, properties.version) {
        (Written::ByUs(text), version) if version != 0 => drift::outdated(installed, text, version),
        _ => None,
    };
    let drop_ins = raw.texts("DropInPaths").into_iter().map(PathBuf::from);
    let files = std::iter::once(installed.path.clone()).chain(drop_ins);
    let user = &properties.user;
    let account = nix::unistd::User::from_name(user).ok().flatten();
    let dynamic = raw.flag("DynamicUser");
    let own = installed.scope == Scope::User;
    InstalledUnit {
        rights: Rights::now(),
        in_our_place: Layout::of(installed.scope, env)
            .is_ok_and(|layout| installed.path.parent() == Some(&layout.units)),
        shadowed: drift::copies(env, installed).into_iter().skip(1).collect(),
        lingers: own.then(linger::is_on),
        env_files: raw
            .environment_files()
            .into_iter()
            .map(|(path, optional)| env_file(path.into(), optional))
            .collect(),
        credentials: raw
            .credentials()
            .into_iter()
            .map(|(name, _)| name)
            .collect(),
        writable: raw.texts("ReadWritePaths"),
        unapplied: changed(env, installed, &raw, config_read_at),
        secrets: secret_names(&properties.environment),
        has_account: user.is_empty() || dynamic || account.is_some() || user.parse::<u32>().is_ok(),
        uid: match (&account, own) {
            (Some(account), false) => Some(account.uid.as_raw()),
            (None, true) => Some(nix::unistd::geteuid().as_raw()),
            (None, false) if user.is_empty() && !dynamic => Some(0),
            (None, false) => user.parse().ok(),
            _ => None,
        },
        gid: account.as_ref().map(|account| account.gid.as_raw()),
        suppressed: suppressed(&installed.unit),
        installed: installed.clone(),
        dynamic,
        properties,
        unreachable,
        files: files.map(|path| read(&path)).collect(),
        written,
        outdated,
    }
}

async fn ask(
    env: &Env<'_>,
    installed: &Installed,
) -> Result<(UnitProperties, Properties), ServiceError> {
    let manager = Manager::connect(installed.scope, env).await?;
    let version = manager.version().await?;
    let said = manager.properties(&installed.unit).await?;
    let properties = UnitProperties {
        version,
        load: said.text("LoadState").into(),
        load_error: said.load_error(),
        active: said.text("ActiveState").into(),
        sub: said.text("SubState").into(),
        result: said.text("Result").into(),
        file_state: manager.file_state(&installed.unit).await,
        needs_reload: said.flag("NeedDaemonReload")
            || has_unread(installed, &said.texts("DropInPaths")),
        service_type: said.text("Type").into(),
        notify_access: said.text("NotifyAccess").into(),
        kill_mode: said.text("KillMode").into(),
        restart: said.text("Restart").into(),
        restart_delay: time(said.number("RestartUSec")).unwrap_or_default(),
        timeout_stop: time(said.number("TimeoutStopUSec")),
        watchdog: time(said.number("WatchdogUSec")).filter(|time| !time.is_zero()),
        fd_store: said.number("FileDescriptorStoreMax"),
        oom_policy: said.text("OOMPolicy").into(),
        nofile: said.number("LimitNOFILE"),
        limit_interval: time(said.number("StartLimitIntervalUSec")).filter(|time| !time.is_zero()),
        limit_burst: said.number("StartLimitBurst"),
        prevent: said.prevented_exit_codes(),
        output: ["StandardOutput", "StandardError"]
            .map(|name| said.text(name))
            .to_vec(),
        environment: said.texts("Environment"),
        wants: ["Wants", "Requires", "After"]
            .iter()
            .flat_map(|name| said.texts(name))
            .collect(),
        program: said.program().map(PathBuf::from),
        restarts: said.number("NRestarts"),
        main_pid: said.number("MainPID"),
        socket: !said.sockets().is_empty(),
        user: said.text("User"),
        waits_for: WaitsFor::of_status(&said.text("StatusText")),
        status_text: said.text("StatusText"),
    };
    Ok((properties, said))
}

/// Whether there is a drop-in that systemd has not read: it does not notice a new drop-in directory.
fn has_unread(installed: &Installed, known: &[String]) -> bool {
    let dir = format!("{}.d", installed.unit);
    let drop_ins = std::fs::read_dir(installed.path.with_file_name(dir))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    drop_ins
        .filter(|path| path.extension().is_some_and(|end| end == "conf"))
        .any(|path| !known.iter().any(|known| path == Path::new(known)))
}

/// The settings of a file, without comments and section headers.
fn read(path: &Path) -> UnitFile {
    // A user's unit is that user's.
    let text = regular_file::read_text(path, UNIT_MAX).unwrap_or_default();
    let setting = |(index, line): (usize, &str)| {
        let line = line.trim();
        let (key, value) = line
            .split_once('=')
            .filter(|_| !line.starts_with(['#', ';', '[']))?;
        Some(UnitLine {
            number: index + 1,
            key: key.trim().to_owned(),
            value: value.trim().to_owned(),
        })
    };
    UnitFile {
        path: path.to_owned(),
        lines: text.lines().enumerate().filter_map(setting).collect(),
    }
}

fn env_file(path: PathBuf, optional: bool) -> UnitEnvFile {
    let mode = std::fs::metadata(&path)
        .ok()
        .map(|meta| meta.permissions().mode() & 0o7777);
    // It may belong to the service's user.
    let text = regular_file::read(&path, ENV_FILE_MAX).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let misread = misread(&text);
    let secret = !secret_names(&text.lines().map(str::to_owned).collect::<Vec<_>>()).is_empty();
    let ours = |path: &Path| {
        let users = [0, nix::unistd::geteuid().as_raw()];
        std::fs::symlink_metadata(path)
            .is_ok_and(|meta| !meta.is_symlink() && users.contains(&meta.uid()))
    };
    let ours = ours(&path) && path.parent().is_some_and(ours);
    UnitEnvFile {
        path,
        optional,
        mode,
        secret,
        misread,
        ours,
    }
}

/// The names of the variables that people mean, and systemd reads otherwise; none where the text is no
/// dotenv either.
fn misread(text: &str) -> Vec<String> {
    let read = Secrets::parse(text);
    // Of two with one name, both take the last.
    let by_systemd: BTreeMap<&str, &str> = read.variables().collect();
    let meant = dotenv(text).unwrap_or_default().into_iter();
    let other = |(name, value): &(String, String)| by_systemd.get(&**name) != Some(&&**value);
    meant.filter(other).map(|(name, _)| name).collect()
}

/// The names of the variables with secret values.
fn secret_names(environment: &[String]) -> Vec<String> {
    let redactor = Redactor::default();
    let secret = |pair: &String| {
        let (key, value) = pair.split_once('=')?;
        (redactor.value(key, value) == MASK).then(|| key.to_owned())
    };
    environment.iter().filter_map(secret).collect()
}

/// What journald reports that it dropped of a service's log in this boot; empty where the journal
/// cannot be read.
fn suppressed(unit: &str) -> Vec<String> {
    // Any program may write a field without an underscore: only journald itself is a driver.
    let entries = journal::entries([
        "--boot",
        "--lines=2000",
        "--output-fields=MESSAGE",
        "_TRANSPORT=driver",
        "SYSLOG_IDENTIFIER=systemd-journald",
    ]);
    let entries = entries.unwrap_or_default();
    let lines = entries
        .iter()
        .filter_map(|entry| journal::text(entry, "MESSAGE"));
    let ours = lines.filter(|line| line.starts_with("Suppressed ") && line.ends_with(unit));
    ours.rev().take(SUPPRESSED_SHOWN).collect()
}

/// A time of systemd in microseconds; none for its infinity.
fn time(usec: u64) -> Option<Duration> {
    (usec != u64::MAX).then(|| Duration::from_micros(usec))
}
