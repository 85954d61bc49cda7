//! How the addresses of a claim stand: free, ours, or held by another process.

use std::io;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::claim::AddressClaim;
use super::judge::Circumstances;
use super::reason::KeepCode;
use super::survey::{self, AddressHolders};
use crate::os::port;
use crate::os::process::Process;

/// How often the port is tried, and for how long (OpenClaw's restart-stale-pids.ts): no event tells
/// when a port becomes free.
const PORT_EVERY: Duration = Duration::from_millis(50);
const PORT_WAIT: Duration = Duration::from_secs(2);

/// How the addresses of a claim stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "state", content = "by")]
pub enum AddressState {
    /// A gateway could listen there.
    Free,
    /// The service manager holds the listener for the service of this gateway: there is nothing to
    /// wait for.
    Kept(String),
    /// This gateway itself listens there.
    Ours,
    /// Other processes listen there.
    Held(Vec<String>),
    /// No process is seen there, and yet the address cannot be bound.
    Busy(String),
}

/// How the addresses of a claim stand now.
///
/// # Errors
/// When the kernel does not list its sockets.
pub fn address_state(claim: &AddressClaim) -> io::Result<AddressState> {
    let holders = survey::holders(claim)?;
    Ok(now(claim, &survey::circumstances(claim), &holders))
}

/// Waits until the addresses are free, as far as that depends on processes that were just ended.
///
/// # Errors
/// When the kernel does not list its sockets.
pub async fn settle(
    claim: &AddressClaim,
    circumstances: &Circumstances,
    ended_some: bool,
) -> io::Result<AddressState> {
    let until = Instant::now() + PORT_WAIT;
    loop {
        let state = now(claim, circumstances, &survey::holders(claim)?);
        let may_change = match state {
            AddressState::Busy(_) => true,
            AddressState::Held(_) => ended_some,
            _ => false,
        };
        if !may_change || Instant::now() >= until {
            return Ok(state);
        }
        sleep(PORT_EVERY).await;
    }
}

/// How the addresses stand with these holders.
pub fn now(
    claim: &AddressClaim,
    circumstances: &Circumstances,
    holders: &AddressHolders,
) -> AddressState {
    let processes: Vec<Process> = holders
        .doors
        .keys()
        .filter_map(|pid| Process::read(*pid))
        .collect();
    let strangers = processes
        .iter()
        .filter(|process| !is_ours(claim, circumstances, holders, process));
    let hidden = holders
        .hidden
        .iter()
        .map(|uid| port::Holder::Hidden(*uid).to_string());
    let mut names: Vec<String> = strangers
        .map(|process| process.called())
        .chain(hidden)
        .collect();
    names.sort();
    names.dedup();
    if !names.is_empty() {
        return AddressState::Held(names);
    }
    if let Some(unit) = &claim.unit
        && !processes.is_empty()
        && processes.iter().all(Process::is_service_manager)
    {
        return AddressState::Kept(unit.name.clone());
    }
    if !processes.is_empty() {
        return AddressState::Ours;
    }
    for listen in &claim.listen {
        // The gateway itself reports any error but "address in use".
        if let Ok(false) = port::can_be_had(listen) {
            return AddressState::Busy(format!("{listen} is in use"));
        }
    }
    AddressState::Free
}

/// Whether a holder is part of this gateway, or the service manager that holds listeners for it.
fn is_ours(
    claim: &AddressClaim,
    circumstances: &Circumstances,
    holders: &AddressHolders,
    process: &Process,
) -> bool {
    let is_of_service = |other: &Process| {
        let reason = circumstances.exemption(other);
        matches!(reason, Some(KeepCode::Main | KeepCode::InUnit))
    };
    if process.is_service_manager() {
        // The service stores a listener in the manager when it has bound it, maybe just now.
        let sharers = holders.sharers.get(&process.pid).into_iter().flatten();
        return claim.unit.as_ref().is_some_and(|unit| unit.holds_listeners)
            || sharers
                .filter_map(|pid| Process::read(*pid))
                .any(|other| is_of_service(&other));
    }
    // A gateway of this name that runs beside the service is in its way, though it is on record.
    let beside = circumstances.main.is_some()
        && circumstances.main != circumstances.owner.map(|owner| owner.pid);
    let recorded = !beside
        && circumstances
            .owner
            .iter()
            .chain(&circumstances.drainers)
            .any(|identity| identity.is(process));
    recorded
        || circumstances
            .exemption(process)
            .is_some_and(|reason| reason.is_ours())
}

impl AddressState {
    /// In a line, about these addresses.
    pub fn describe(&self, addresses: &[impl ToString]) -> String {
        let at = addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        match self {
            Self::Free => format!("{at}: free"),
            Self::Kept(unit) => format!("{at}: held by the service manager for {unit}"),
            Self::Ours => format!("{at}: held by this gateway"),
            Self::Held(by) => format!("{at}: held by {}", by.join(", ")),
            Self::Busy(why) => format!("{at}: cannot be had: {why}"),
        }
    }
}
