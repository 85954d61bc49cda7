//! Ending what is proven stale, and waiting for the port.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::judge::{Proof, Reason, Suspect, Verdict, World};
use super::report::{Ended, Kept, Report, State};
use super::scene::{Found, Scene, suspects};
use crate::port;
use crate::process::{PidFd, Process};

/// How long a stale gateway has after SIGTERM, and how long the kernel has after SIGKILL (OpenClaw's restart-stale-pids.ts).
const TERM_WAIT: Duration = Duration::from_millis(600);
const KILL_WAIT: Duration = Duration::from_millis(400);

/// How long a healthy gateway that was asked to stop may finish its work: TimeoutStopSec of our units.
const ASKED_WAIT: Duration = Duration::from_secs(30);

/// How often the port is tried, and for how long (OpenClaw's constants as well): nothing tells when a port becomes free.
const PORT_EVERY: Duration = Duration::from_millis(50);
const PORT_WAIT: Duration = Duration::from_secs(2);

/// How far cleaning goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It only says what it would do.
    DryRun,
    /// What is proven stale is ended.
    Stale,
    /// And a healthy gateway that nobody looks after is asked to stop, which it does in its own time.
    Ask,
}

/// What is done to one.
enum Doing {
    Ending(Proof),
    Asking,
}

/// Ends the gateways that are proven stale at the scene's addresses, waits for those to become free, and reports.
///
/// # Errors
/// Where the kernel tells of no sockets.
pub async fn clean(scene: &Scene, mode: Mode) -> io::Result<Report> {
    let found = scene.look()?;
    let world = scene.world();
    let suspects = suspects(&world, &found).await;
    let verdicts: Vec<(Suspect, Verdict)> = suspects.into_iter().map(|suspect| (suspect.clone(), world.judge(&suspect))).collect();
    let acted = join_all(verdicts.iter().filter_map(|(suspect, verdict)| {
        let doing = match verdict {
            Verdict::Stale(proof) => Doing::Ending(*proof),
            Verdict::Kept(reason) if mode == Mode::Ask && reason.may_be_asked() => Doing::Asking,
            Verdict::Kept(_) => return None,
        };
        Some(async { (suspect.process.pid, act(&world, scene, suspect, doing, mode).await) })
    }))
    .await;
    let ended: HashMap<u32, Option<Ended>> = acted.into_iter().collect();
    let kept: Vec<Kept> =
        verdicts.iter().filter(|(suspect, _)| !matches!(ended.get(&suspect.process.pid), Some(Some(_)))).map(kept).collect();
    let mut killed: Vec<Ended> = ended.into_values().flatten().collect();
    killed.sort_by_key(|ended| ended.pid);
    let state = if mode == Mode::DryRun { stands(scene, &world, &found)? } else { settle(scene, &world, !killed.is_empty()).await? };
    let addresses = scene.listen.iter().map(ToString::to_string).collect();
    Ok(Report { addresses, killed, kept, state, dry_run: mode == Mode::DryRun })
}

/// How the scene's addresses stand, without doing anything about it.
///
/// # Errors
/// Where the kernel tells of no sockets.
pub fn state(scene: &Scene) -> io::Result<State> {
    stands(scene, &scene.world(), &scene.look()?)
}

/// Ends one process, or asks it; none when it turned out to be another one by now, or would not go.
async fn act(world: &World, scene: &Scene, suspect: &Suspect, doing: Doing, mode: Mode) -> Option<Ended> {
    let process = &suspect.process;
    let (proof, why) = match &doing {
        Doing::Ending(proof) => (proof.code(), proof.to_string()),
        Doing::Asking => ("asked", "it was asked to stop, and did".to_owned()),
    };
    let ended = |signal| Some(Ended { pid: process.pid, uid: process.uid, name: process.name.clone(), signal, proof, why: why.clone() });
    if mode == Mode::DryRun {
        return ended(None);
    }
    // The descriptor first: what is read afterwards is about the process that it leads to.
    let pidfd = match PidFd::open(process.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return ended(None),
        // No descriptor is to be had here; without one there is no certainty.
        Err(_) => return None,
    };
    let same = Process::read(process.pid).is_some_and(|now| now == *process);
    let holds = scene.look().is_ok_and(|found| found.suspects.contains_key(&process.pid));
    if !same || !holds || world.never(process).is_some() {
        return None;
    }
    let end = pidfd.ended().ok()?;
    let (patience, last) = match doing {
        Doing::Ending(_) => (TERM_WAIT, true),
        Doing::Asking => (ASKED_WAIT, false),
    };
    // Gone is as good.
    let _ = pidfd.signal(Signal::SIGTERM);
    if timeout(patience, end.wait()).await.is_ok() {
        return ended(Some("TERM"));
    }
    if !last {
        return None;
    }
    let _ = pidfd.signal(Signal::SIGKILL);
    let _ = timeout(KILL_WAIT, end.wait()).await;
    ended(Some("KILL"))
}

fn kept((suspect, verdict): &(Suspect, Verdict)) -> Kept {
    let reason = match verdict {
        Verdict::Kept(reason) => reason.clone(),
        Verdict::Stale(_) => Reason::Changed,
    };
    let process = &suspect.process;
    let (why, code) = (reason.to_string(), reason.code());
    Kept { pid: process.pid, uid: process.uid, name: process.name.clone(), reason: code, why, ours: reason.is_ours() }
}

/// Waits until the addresses can be had, as far as that depends on those that were just ended.
async fn settle(scene: &Scene, world: &World, ended_some: bool) -> io::Result<State> {
    let until = Instant::now() + PORT_WAIT;
    loop {
        let found = scene.look()?;
        let state = stands(scene, world, &found)?;
        let may_change = matches!(state, State::Busy(_)) || ended_some && matches!(state, State::Held(_));
        if !may_change || Instant::now() >= until {
            return Ok(state);
        }
        sleep(PORT_EVERY).await;
    }
}

/// How the addresses stand now.
fn stands(scene: &Scene, world: &World, found: &Found) -> io::Result<State> {
    let holders: Vec<Process> = found.suspects.keys().filter_map(|pid| Process::read(*pid)).collect();
    let strangers: Vec<&Process> = holders.iter().filter(|process| !is_ours(scene, world, process)).collect();
    let hidden = found.hidden.iter().map(|uid| port::Holder::Hidden(*uid).to_string());
    let mut names: Vec<String> = strangers.iter().map(|process| process.called()).chain(hidden).collect();
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
    let recorded = world.owner.iter().chain(&world.drainers).any(|identity| identity.is(process));
    recorded || world.never(process).is_some_and(|reason| reason.is_ours())
}
