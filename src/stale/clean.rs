//! Ends the processes that are judged stale.

use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::time::sleep;
use tracing::warn;

use super::claim::AddressClaim;
use super::judge::{Judgment, Suspect};
use super::reason::{EndProof, KeepCode};
use super::report::{EndSignal, EndedProcess, KeptProcess};
use super::survey::look_again;
use super::terminate::{is_gone, signal_and_wait};
use crate::os::process::PidFd;
use crate::state::history::{ForeignEnd, record_foreign_end};
use crate::state::terms::EndReason;

/// How long a stale gateway has after SIGTERM, and how long the kernel has after SIGKILL
/// (OpenClaw's restart-stale-pids.ts).
const TERM_WAIT: Duration = Duration::from_millis(600);
const KILL_WAIT: Duration = Duration::from_millis(400);

/// How long a healthy gateway may finish its work after it was asked to stop: TimeoutStopSec of our
/// units.
const ASKED_WAIT: Duration = Duration::from_secs(30);

/// How far cleaning goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanMode {
    /// Nothing is ended; the report tells what would be.
    DryRun,
    /// What is proven stale is ended.
    Stale,
    /// In addition, a healthy gateway of this instance that no service manager looks after is asked
    /// to stop. It is never killed.
    Ask,
}

/// Ends the processes that are judged stale, all at once.
pub async fn end_judged(
    claim: &AddressClaim,
    judged: impl Iterator<Item = (&Suspect, Judgment)>,
    mode: CleanMode,
) -> (Vec<EndedProcess>, Vec<KeptProcess>) {
    let ends = judged.map(|(suspect, judgment)| end(claim, suspect, judgment, mode));
    let (mut ended, mut kept) = (Vec::new(), Vec::new());
    for outcome in join_all(ends).await {
        match outcome {
            Ok(one) => ended.push(one),
            Err(one) => kept.push(one),
        }
    }
    (ended, kept)
}

/// Ends one process, or returns it with the reason why it is kept.
async fn end(
    claim: &AddressClaim,
    suspect: &Suspect,
    judgment: Judgment,
    mode: CleanMode,
) -> Result<EndedProcess, KeptProcess> {
    let proof = may_end(suspect, judgment, mode)?;
    let ended = |signal| EndedProcess::new(&suspect.process, signal, proof);
    let kept = |reason| KeptProcess::new(suspect, reason);
    if mode == CleanMode::DryRun {
        return Ok(ended(None));
    }
    // The descriptor comes first: what is read afterwards is about the process that it leads to.
    let pidfd = match PidFd::open(suspect.process.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if is_gone(&error) => return Ok(ended(None)),
        // Without a descriptor, the signal might reach another process.
        Err(_) => return Err(kept(KeepCode::NotPermitted)),
    };
    // The questions took seconds: the answers may be out of date.
    let (now, judgment_now) = look_again(claim, suspect)
        .await
        .ok_or_else(|| kept(KeepCode::Changed))?;
    // What is to be killed is not asked instead, nor the other way round.
    let mode_now = match judgment {
        Judgment::Stale(_) => CleanMode::Stale,
        Judgment::Kept(_) => mode,
    };
    if (may_end(&now, judgment_now, mode_now)? == EndProof::Asked) != (proof == EndProof::Asked) {
        return Err(kept(KeepCode::Changed));
    }

    let not_permitted = |_| kept(KeepCode::NotPermitted);
    let end = pidfd.ended();
    let send = async |signal, limit| {
        signal_and_wait(&pidfd, &end, signal, sleep(limit))
            .await
            .map_err(not_permitted)
    };
    let limit = match judgment {
        Judgment::Stale(_) => TERM_WAIT,
        Judgment::Kept(_) => ASKED_WAIT,
    };
    if send(Signal::SIGTERM, limit).await? {
        record(claim, suspect, proof, Signal::SIGTERM);
        return Ok(ended(Some(EndSignal::Term)));
    }
    match judgment {
        Judgment::Stale(_) => {
            // First, so that who starts it again finds it.
            record(claim, suspect, proof, Signal::SIGKILL);
            // A process that sleeps in the kernel may take longer. Then the port stays busy, and
            // the report says so.
            send(Signal::SIGKILL, KILL_WAIT).await?;
            Ok(ended(Some(EndSignal::Kill)))
        }
        // A healthy gateway is never killed.
        Judgment::Kept(reason) => Err(kept(reason)),
    }
}

/// Writes into the history of a gateway that is ended who did that and why: a process that is killed
/// cannot, and its end would count as a crash. One that ended in order has written it itself.
fn record(claim: &AddressClaim, suspect: &Suspect, proof: EndProof, signal: Signal) {
    let process = &suspect.process;
    let (by, uid) = (&claim.by, nix::unistd::geteuid());
    for dir in &claim.state {
        let why = format!("{by}, by uid {uid}, with {signal}: {}", proof.text());
        let end = ForeignEnd {
            planned: true,
            reason: EndReason::Other(why),
            ..ForeignEnd::killed(process.pid, signal)
        };
        if let Err(error) = record_foreign_end(dir, process.start_time, end) {
            let dir = dir.display();
            warn!(
                "[gateway] cannot record the end of pid {} in {dir}: {error}",
                process.pid
            );
        }
    }
}

/// The proof with which a process may be ended. With [`CleanMode::Ask`], that is also a healthy
/// gateway of this instance that no service manager looks after.
///
/// # Errors
/// The process, with the reason why it is kept.
fn may_end(
    suspect: &Suspect,
    judgment: Judgment,
    mode: CleanMode,
) -> Result<EndProof, KeptProcess> {
    let of_this = || {
        let gateway = suspect.gateway.as_ref();
        gateway.is_some_and(|gateway| gateway.of_this)
    };
    match judgment {
        Judgment::Stale(proof) => Ok(proof),
        Judgment::Kept(KeepCode::Owns) if mode == CleanMode::Ask => Ok(EndProof::Asked),
        Judgment::Kept(KeepCode::Answers) if mode == CleanMode::Ask && of_this() => {
            Ok(EndProof::Asked)
        }
        Judgment::Kept(reason) => Err(KeptProcess::new(suspect, reason)),
    }
}
