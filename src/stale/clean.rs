//! Ending what is proven stale, and waiting for the port.

use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::judge::{Proof, Reason, Suspect, Verdict, World};
use super::report::{Ended, Kept, Report, State};
use super::survey::{Found, Scene, suspect as suspect_again, suspects};
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
pub enum Mode {
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
    Ending(Proof),
    /// And why it is left alone when it does not stop.
    Asking(Reason),
}

/// Ends the gateways that are proven stale at the scene's addresses, waits for those to become
/// free, and reports.
///
/// # Errors
/// Where the kernel tells of no sockets.
pub async fn clean(scene: &Scene, mode: Mode) -> io::Result<Report> {
    let found = scene.look()?;
    let world = scene.world();
    let suspects = suspects(&world, scene, &found).await;
    let outcomes = join_all(
        suspects
            .iter()
            .map(|suspect| deal_with(&world, scene, suspect, mode)),
    )
    .await;
    let (mut killed, mut kept) = (Vec::new(), Vec::new());
    for (suspect, outcome) in suspects.iter().zip(outcomes) {
        match outcome {
            Ok(ended) => killed.push(ended),
            Err(reason) => kept.push(left_alone(&suspect.process, &reason)),
        }
    }
    let state = if mode == Mode::DryRun {
        stands(scene, &world, &found)?
    } else {
        settle(scene, &world, !killed.is_empty()).await?
    };
    let addresses = scene.listen.iter().map(ToString::to_string).collect();
    Ok(Report {
        addresses,
        killed,
        kept,
        state,
        dry_run: mode == Mode::DryRun,
    })
}

/// How the scene's addresses stand, without doing anything about it.
///
/// # Errors
/// Where the kernel tells of no sockets.
pub fn state(scene: &Scene) -> io::Result<State> {
    stands(scene, &scene.world(), &scene.look()?)
}

/// What one process deserves.
async fn deal_with(
    world: &World,
    scene: &Scene,
    suspect: &Suspect,
    mode: Mode,
) -> Result<Ended, Reason> {
    match world.judge(suspect) {
        Verdict::Stale(proof) => act(scene, suspect, Doing::Ending(proof), mode).await,
        Verdict::Kept(reason) if mode == Mode::Ask && World::may_be_asked(suspect, &reason) => {
            act(scene, suspect, Doing::Asking(reason), mode).await
        }
        Verdict::Kept(reason) => Err(reason),
    }
}

/// Ends one process, or asks it to stop.
///
/// # Errors
/// Why it was left alone after all.
async fn act(scene: &Scene, suspect: &Suspect, doing: Doing, mode: Mode) -> Result<Ended, Reason> {
    let process = &suspect.process;
    let (proof, why) = match &doing {
        Doing::Ending(proof) => (proof.code(), proof.to_string()),
        Doing::Asking(_) => ("asked", "it was asked to stop, and did".to_owned()),
    };
    let ended = |signal| {
        Ok(Ended {
            pid: process.pid,
            uid: process.uid,
            name: process.name.clone(),
            signal,
            proof,
            why: why.clone(),
        })
    };
    if mode == Mode::DryRun {
        return ended(None);
    }
    // The descriptor first: what is read afterwards is about the process that it leads to.
    let pidfd = match PidFd::open(process.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if is_gone(&error) => return ended(None),
        // Without a descriptor there is no certainty.
        Err(_) => return Err(Reason::NotPermitted),
    };
    // The questions took seconds: what was known then may be otherwise now.
    let found = scene.look().map_err(|_| Reason::Changed)?;
    let doors = found.suspects.get(&process.pid).ok_or(Reason::Changed)?;
    let world = scene.world();
    let now = suspect_again(&world, scene, process.pid, doors, 1)
        .await
        .filter(|now| now.process == *process)
        .ok_or(Reason::Changed)?;
    match (world.judge(&now), &doing) {
        (Verdict::Stale(_), Doing::Ending(_)) => {}
        (Verdict::Kept(reason), Doing::Asking(_)) if World::may_be_asked(&now, &reason) => {}
        (Verdict::Kept(reason), _) => return Err(reason),
        (Verdict::Stale(_), Doing::Asking(_)) => return Err(Reason::Changed),
    }
    let end = pidfd.ended().map_err(|_| Reason::NotPermitted)?;
    let send = |signal| match pidfd.signal(signal) {
        Err(error) if !is_gone(&error) => Err(Reason::NotPermitted),
        _ => Ok(()),
    };
    let patience = if matches!(doing, Doing::Ending(_)) {
        TERM_WAIT
    } else {
        ASKED_WAIT
    };
    send(Signal::SIGTERM)?;
    if timeout(patience, end.wait()).await.is_ok() {
        return ended(Some("TERM"));
    }
    if let Doing::Asking(reason) = doing {
        return Err(reason);
    }
    send(Signal::SIGKILL)?;
    // One that sleeps in the kernel may take longer; then the port tells.
    let _ = timeout(KILL_WAIT, end.wait()).await;
    ended(Some("KILL"))
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

fn left_alone(process: &Process, reason: &Reason) -> Kept {
    let (why, code) = (reason.to_string(), reason.code());
    Kept {
        pid: process.pid,
        uid: process.uid,
        name: process.name.clone(),
        reason: code,
        why,
        ours: reason.is_ours(),
    }
}

/// Waits until the addresses can be had, as far as that depends on those that were just ended.
async fn settle(scene: &Scene, world: &World, ended_some: bool) -> io::Result<State> {
    let until = Instant::now() + PORT_WAIT;
    loop {
        let found = scene.look()?;
        let state = stands(scene, world, &found)?;
        let may_change =
            matches!(state, State::Busy(_)) || ended_some && matches!(state, State::Held(_));
        if !may_change || Instant::now() >= until {
            return Ok(state);
        }
        sleep(PORT_EVERY).await;
    }
}

/// How the addresses stand now.
fn stands(scene: &Scene, world: &World, found: &Found) -> io::Result<State> {
    let holders: Vec<Process> = found
        .suspects
        .keys()
        .filter_map(|pid| Process::read(*pid))
        .collect();
    let strangers: Vec<&Process> = holders
        .iter()
        .filter(|process| !is_ours(scene, world, process))
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
        return Ok(State::Held(names));
    }
    if let (Some(unit), true) = (&scene.unit, holders.iter().any(Process::is_systemd))
        && holders.iter().all(Process::is_systemd)
    {
        return Ok(State::Kept(unit.name.clone()));
    }
    if !holders.is_empty() {
        return Ok(State::Ours);
    }
    for listen in &scene.listen {
        match port::can_be_had(listen) {
            Ok(true) => {}
            Ok(false) => return Ok(State::Busy(format!("{listen} is in use"))),
            // What is not "in use" is the gateway's own to report.
            Err(_) => {}
        }
    }
    Ok(State::Free)
}

/// Whether a holder is part of this gateway, or its manager's hold on its behalf.
fn is_ours(scene: &Scene, world: &World, process: &Process) -> bool {
    if process.is_systemd() {
        return scene.unit.as_ref().is_some_and(|unit| unit.holds_listeners);
    }
    let recorded = world
        .owner
        .iter()
        .chain(&world.drainers)
        .any(|identity| identity.is(process));
    recorded || world.never(process).is_some_and(|reason| reason.is_ours())
}
