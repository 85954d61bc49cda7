//! Ending what is proven stale, and waiting for the port.

use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::judge::{Circumstances, Judgment, KeepReason, StaleProof, Suspect};
use super::report::{AddressState, CleanReport, EndProof, EndSignal, EndedProcess, KeptProcess};
use super::survey::{AddressClaim, AddressHolders, suspect as suspect_again, suspects};
use crate::os::port;
use crate::os::process::{PidFd, Process};

/// How long a stale gateway has after SIGTERM, and how long the kernel has after SIGKILL
/// (OpenClaw's restart-stale-pids.ts).
const TERM_WAIT: Duration = Duration::from_millis(600);
const KILL_WAIT: Duration = Duration::from_millis(400);

/// How long a healthy gateway that was asked to stop may finish its work: TimeoutStopSec of our
/// units.
const ASKED_WAIT: Duration = Duration::from_secs(30);

/// How often the port is tried, and for how long (OpenClaw's constants as well): nothing tells when
/// a port becomes free.
const PORT_EVERY: Duration = Duration::from_millis(50);
const PORT_WAIT: Duration = Duration::from_secs(2);

/// How far cleaning goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanMode {
    /// It only says what it would do.
    DryRun,
    /// What is proven stale is ended.
    Stale,
    /// And a healthy gateway that nobody looks after is asked to stop, which it does in its own
    /// time.
    Ask,
}

/// What is done to one.
enum Doing {
    Ending(StaleProof),
    /// And why it is left alone when it does not stop.
    Asking(KeepReason),
}

/// Ends the gateways that are proven stale at the claim's addresses, waits for those to become
/// free, and reports.
///
/// # Errors
/// Where the kernel tells of no sockets.
pub async fn end_stale(claim: &AddressClaim, mode: CleanMode) -> io::Result<CleanReport> {
    let found = claim.look()?;
    let circumstances = claim.circumstances();
    let suspects = suspects(&circumstances, claim, &found).await;
    let outcomes = join_all(
        suspects
            .iter()
            .map(|suspect| deal_with(&circumstances, claim, suspect, mode)),
    )
    .await;
    let (mut killed, mut kept) = (Vec::new(), Vec::new());
    for (suspect, outcome) in suspects.iter().zip(outcomes) {
        match outcome {
            Ok(ended) => killed.push(ended),
            Err(reason) => kept.push(left_alone(&suspect.process, &reason)),
        }
    }
    let state = if mode == CleanMode::DryRun {
        stands(claim, &circumstances, &found)?
    } else {
        settle(claim, &circumstances, !killed.is_empty()).await?
    };
    let addresses = claim.listen.iter().map(ToString::to_string).collect();
    Ok(CleanReport {
        addresses,
        killed,
        kept,
        state,
        dry_run: mode == CleanMode::DryRun,
    })
}

/// How the claim's addresses stand, without doing anything about it.
///
/// # Errors
/// Where the kernel tells of no sockets.
pub fn address_state(claim: &AddressClaim) -> io::Result<AddressState> {
    stands(claim, &claim.circumstances(), &claim.look()?)
}

/// What one process deserves.
async fn deal_with(
    circumstances: &Circumstances,
    claim: &AddressClaim,
    suspect: &Suspect,
    mode: CleanMode,
) -> Result<EndedProcess, KeepReason> {
    match circumstances.judge(suspect) {
        Judgment::Stale(proof) => act(claim, suspect, Doing::Ending(proof), mode).await,
        Judgment::Kept(reason)
            if mode == CleanMode::Ask && Circumstances::may_be_asked(suspect, &reason) =>
        {
            act(claim, suspect, Doing::Asking(reason), mode).await
        }
        Judgment::Kept(reason) => Err(reason),
    }
}

/// Ends one process, or asks it to stop.
///
/// # Errors
/// Why it was left alone after all.
async fn act(
    claim: &AddressClaim,
    suspect: &Suspect,
    doing: Doing,
    mode: CleanMode,
) -> Result<EndedProcess, KeepReason> {
    let process = &suspect.process;
    let (proof, why) = match &doing {
        Doing::Ending(proof) => (proof.code(), proof.to_string()),
        Doing::Asking(_) => (EndProof::Asked, "it was asked to stop, and did".to_owned()),
    };
    let ended = |signal| {
        Ok(EndedProcess {
            pid: process.pid,
            uid: process.uid,
            name: process.name.clone(),
            signal,
            proof,
            why: why.clone(),
        })
    };
    if mode == CleanMode::DryRun {
        return ended(None);
    }
    // The descriptor first: what is read afterwards is about the process that it leads to.
    let pidfd = match PidFd::open(process.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if is_gone(&error) => return ended(None),
        // Without a descriptor there is no certainty.
        Err(_) => return Err(KeepReason::NotPermitted),
    };
    // The questions took seconds: what was known then may be otherwise now.
    let found = claim.look().map_err(|_| KeepReason::Changed)?;
    let doors = found
        .suspects
        .get(&process.pid)
        .ok_or(KeepReason::Changed)?;
    let circumstances = claim.circumstances();
    let now = suspect_again(&circumstances, claim, process.pid, doors, 1)
        .await
        .filter(|now| now.process == *process)
        .ok_or(KeepReason::Changed)?;
    match (circumstances.judge(&now), &doing) {
        (Judgment::Stale(_), Doing::Ending(_)) => {}
        (Judgment::Kept(reason), Doing::Asking(_))
            if Circumstances::may_be_asked(&now, &reason) => {}
        (Judgment::Kept(reason), _) => return Err(reason),
        (Judgment::Stale(_), Doing::Asking(_)) => return Err(KeepReason::Changed),
    }
    let end = pidfd.ended().map_err(|_| KeepReason::NotPermitted)?;
    let send = |signal| match pidfd.signal(signal) {
        Err(error) if !is_gone(&error) => Err(KeepReason::NotPermitted),
        _ => Ok(()),
    };
    let patience = if matches!(doing, Doing::Ending(_)) {
        TERM_WAIT
    } else {
        ASKED_WAIT
    };
    send(Signal::SIGTERM)?;
    if timeout(patience, end.wait()).await.is_ok() {
        return ended(Some(EndSignal::Term));
    }
    if let Doing::Asking(reason) = doing {
        return Err(reason);
    }
    send(Signal::SIGKILL)?;
    // One that sleeps in the kernel may take longer; then the port tells.
    let _ = timeout(KILL_WAIT, end.wait()).await;
    ended(Some(EndSignal::Kill))
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

fn left_alone(process: &Process, reason: &KeepReason) -> KeptProcess {
    let (why, code) = (reason.to_string(), reason.code());
    KeptProcess {
        pid: process.pid,
        uid: process.uid,
        name: process.name.clone(),
        reason: code,
        why,
        ours: reason.is_ours(),
    }
}

/// Waits until the addresses can be had, as far as that depends on those that were just ended.
async fn settle(
    claim: &AddressClaim,
    circumstances: &Circumstances,
    ended_some: bool,
) -> io::Result<AddressState> {
    let until = Instant::now() + PORT_WAIT;
    loop {
        let found = claim.look()?;
        let state = stands(claim, circumstances, &found)?;
        let may_change = matches!(state, AddressState::Busy(_))
            || ended_some && matches!(state, AddressState::Held(_));
        if !may_change || Instant::now() >= until {
            return Ok(state);
        }
        sleep(PORT_EVERY).await;
    }
}

/// How the addresses stand now.
fn stands(
    claim: &AddressClaim,
    circumstances: &Circumstances,
    found: &AddressHolders,
) -> io::Result<AddressState> {
    let holders: Vec<Process> = found
        .suspects
        .keys()
        .filter_map(|pid| Process::read(*pid))
        .collect();
    let strangers: Vec<&Process> = holders
        .iter()
        .filter(|process| !is_ours(claim, circumstances, process))
        .collect();
    let hidden = found
        .hidden
        .iter()
        .map(|uid| port::Holder::Hidden(*uid).to_string());
    let mut names: Vec<String> = strangers
        .iter()
        .map(|process| process.called())
        .chain(hidden)
        .collect();
    names.sort();
    names.dedup();
    if !names.is_empty() {
        return Ok(AddressState::Held(names));
    }
    if let (Some(unit), true) = (&claim.unit, holders.iter().any(Process::is_systemd))
        && holders.iter().all(Process::is_systemd)
    {
        return Ok(AddressState::Kept(unit.name.clone()));
    }
    if !holders.is_empty() {
        return Ok(AddressState::Ours);
    }
    for listen in &claim.listen {
        match port::can_be_had(listen) {
            Ok(true) => {}
            Ok(false) => return Ok(AddressState::Busy(format!("{listen} is in use"))),
            // What is not "in use" is the gateway's own to report.
            Err(_) => {}
        }
    }
    Ok(AddressState::Free)
}

/// Whether a holder is part of this gateway, or its manager's hold on its behalf.
fn is_ours(claim: &AddressClaim, circumstances: &Circumstances, process: &Process) -> bool {
    if process.is_systemd() {
        return claim.unit.as_ref().is_some_and(|unit| unit.holds_listeners);
    }
    let recorded = circumstances
        .owner
        .iter()
        .chain(&circumstances.drainers)
        .any(|identity| identity.is(process));
    recorded
        || circumstances
            .never(process)
            .is_some_and(|reason| reason.is_ours())
}
