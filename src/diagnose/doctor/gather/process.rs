//! The gateway's process, and other processes that hold its addresses.

use std::ffi::OsString;
use std::time::Duration;

use crate::config::Listen;
use crate::diagnose::doctor::facts::{AddressHolder, DoctorFacts, FrontAddress, RunningProcess};
use crate::os::port::{self, Depth, Holder};
use crate::os::process::{self, Process, Stat};
use crate::state::paths::Scope;

pub(super) fn look(pid: u32, unseen: &mut Vec<String>) -> Option<RunningProcess> {
    let process = format!("/proc/{pid}");
    let link = match std::fs::read_link(format!("{process}/exe")) {
        Ok(link) => link,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            unseen.push(format!("process {pid}: {error}"));
            return None;
        }
        Err(_) => return None,
    };
    let program = process::before_replaced(&link);
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let environment = process::environment(pid).unwrap_or_default().into_iter();
    let environment = environment.map(|(key, value)| (text(key), text(value)));
    Some(RunningProcess {
        pid,
        replaced: link != program,
        program,
        environment: environment.collect(),
        descriptors: descriptors(pid),
        age: age(pid).unwrap_or_default(),
    })
}

/// Descriptors in use and their limit.
fn descriptors(pid: u32) -> Option<(u64, u64)> {
    let used = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    Some((used, line.split_whitespace().next()?.parse().ok()?))
}

/// Time since its start.
fn age(pid: u32) -> Option<Duration> {
    let ticks = Stat::read(pid)?.start_time;
    let hertz = u64::try_from(
        nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
            .ok()
            .flatten()?,
    )
    .ok()?;
    let up: f64 = std::fs::read_to_string("/proc/uptime")
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Duration::try_from_secs_f64(up - ticks as f64 / hertz as f64).ok()
}

/// The addresses of the running gateway and of its configuration, and what else listens there.
pub(super) fn addresses(facts: &DoctorFacts) -> Vec<FrontAddress> {
    let status = facts.status.iter();
    let mut all: Vec<Listen> = status
        .flat_map(|status| &status.listeners)
        .filter_map(|text| text.parse().ok())
        .collect();
    // Where the configuration is not known, its defaults are not its addresses.
    let configured = facts.config.valid.iter();
    for listen in configured.flat_map(|config| &config.gateway.listen) {
        if !all.contains(listen) {
            all.push(listen.clone());
        }
    }
    all.into_iter()
        .map(|listen| FrontAddress {
            others: others(facts, &listen),
            listen,
        })
        .collect()
}

/// What listens at an address and is neither this gateway, nor one of its own processes, nor a
/// service manager on its behalf.
fn others(facts: &DoctorFacts, listen: &Listen) -> Vec<AddressHolder> {
    let mut own = Vec::new();
    if let Some(status) = &facts.status {
        own.push(status.pid);
        own.extend(status.drainers.iter().map(|drainer| drainer.pid));
    }
    own.extend(facts.main_pid());
    let group = own
        .iter()
        .find_map(|pid| Process::read(*pid))
        .and_then(|process| process.service().map(str::to_owned));
    let in_group = |process: &Process| {
        let group = group.as_ref();
        group.is_some_and(|group| process::is_within(&process.group, group))
    };
    let is_own = |process: &Process| {
        let ancestors = process::ancestors(process.pid);
        own.contains(&process.pid)
            || process.is_service_manager()
            || in_group(process)
            || ancestors.iter().any(|pid| own.contains(pid))
    };
    let other = |holder: Holder| match holder {
        Holder::Seen(process) if is_own(&process) => None,
        Holder::Seen(process) => Some(AddressHolder {
            pid: process.pid,
            name: process.name.clone(),
            uid: process.uid,
            unit: process
                .service()
                .and_then(|group| group.rsplit('/').next())
                .map(str::to_owned),
            is_gateway: process.is_gateway(),
        }),
        // A hidden process may be the gateway itself, unless that would run as the caller.
        Holder::Hidden(uid) => {
            let unit = facts.unit.as_ref();
            let of_user = unit.is_none_or(|unit| unit.installed.scope == Scope::User);
            let uid = uid.filter(|uid| of_user && *uid != nix::unistd::geteuid().as_raw())?;
            Some(AddressHolder {
                uid,
                ..AddressHolder::default()
            })
        }
    };
    port::who(listen, &own, Depth::All)
        .into_iter()
        .filter_map(other)
        .collect()
}
