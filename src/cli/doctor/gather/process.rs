//! The gateway's process, and who else holds its addresses.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cli::doctor::facts::{Facts, Port, Process};
use crate::config::Listen;
use crate::control::protocol::Status;
use crate::port;
use crate::state::owner;

/// Looks at a process.
pub(super) fn look(pid: u32, unseen: &mut Vec<String>) -> Option<Process> {
    let process = format!("/proc/{pid}");
    let link = match std::fs::read_link(format!("{process}/exe")) {
        Ok(link) => link,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            unseen.push(format!("process {pid}: {error}"));
            return None;
        }
        Err(_) => return None,
    };
    let program = port::before_replaced(&link);
    let environment = std::fs::read(format!("{process}/environ")).unwrap_or_default();
    let pair = |entry: &[u8]| {
        let text = String::from_utf8_lossy(entry);
        text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    let environment: BTreeMap<String, String> = environment.split(|byte| *byte == 0).filter_map(pair).collect();
    Some(Process { pid, replaced: link != program, program, environment, fds: fds(pid), age: age(pid).unwrap_or_default() })
}

fn fds(pid: u32) -> Option<(u64, u64)> {
    let used = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    Some((used, line.split_whitespace().next()?.parse().ok()?))
}

/// How long it lives.
fn age(pid: u32) -> Option<Duration> {
    let ticks = owner::start_time(pid)?;
    let hertz = u64::try_from(nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten()?).ok()?;
    let up: f64 = std::fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(up - ticks as f64 / hertz as f64).ok()
}

/// The addresses of the gateway, and who else listens there.
pub(super) fn ports(facts: &Facts, live: Option<&Status>) -> Vec<Port> {
    let told = live.map(|live| live.listeners.iter().filter_map(|text| text.parse::<Listen>().ok()).collect::<Vec<_>>());
    let listen = told.filter(|told| !told.is_empty()).unwrap_or_else(|| facts.config.get().gateway.listen);
    listen.into_iter().map(|listen| Port { listen, strangers: Vec::new() }).collect()
}
