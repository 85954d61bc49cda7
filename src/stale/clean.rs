//! Ends the processes that are judged stale.

use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::claim::AddressClaim;
use super::judge::{Circumstances, Judgment, Suspect};
use super::reason::{EndProof, KeepReason, StaleProof};
use super::report::{EndSignal, EndedProcess, KeptProcess};
use super::survey::look_again;
use super::terminate::{is_gone, signal_and_wait};
use crate::os::process::PidFd;

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

/// How a process is ended.
enum Ending {
    /// SIGTERM, and SIGKILL if it does not end.
    Forced(StaleProof),
    /// SIGTERM only. A process that does not end is kept, for this reason.
    Asked(KeepReason),
}

/// Ends the processes that are judged stale, all at once.
pub async fn end_judged(
    claim: &AddressClaim,
    judged: Vec<(&Suspect, Judgment)>,
    mode: CleanMode,
) -> (Vec<EndedProcess>, Vec<KeptProcess>) {
    let outcomes = join_all(judged.into_iter().map(|(suspect, judgment)| async move {
        let outcome = match Ending::of(suspect, judgment, mode) {
            Ok(ending) => end(claim, suspect, ending, mode).await,
            Err(reason) => Err(reason),
        };
        (suspect, outcome)
    }))
    .await;
    let (mut ended, mut kept) = (Vec::new(), Vec::new());
    for (suspect, outcome) in outcomes {
        match outcome {
            Ok(one) => ended.push(one),
            Err(reason) => kept.push(KeptProcess::new(&suspect.process, &reason)),
        }
    }
    (ended, kept)
}

/// Ends one process.
///
/// # Errors
/// The reason why the process is kept after all.
async fn end(
    claim: &AddressClaim,
    suspect: &Suspect,
    ending: Ending,
    mode: CleanMode,
) -> Result<EndedProcess, KeepReason> {
    let ended = |signal| {
        let (proof, why) = ending.words();
        EndedProcess::new(&suspect.process, signal, proof, why)
    };
    if mode == CleanMode::DryRun {
        return Ok(ended(None));
    }
    // The descriptor comes first: what is read afterwards is about the process that it leads to.
    let pidfd = match PidFd::open(suspect.process.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if is_gone(&error) => return Ok(ended(None)),
        // Without a descriptor, the signal might reach another process.
        Err(_) => return Err(KeepReason::NotPermitted),
    };
    // The questions took seconds: what they told may have changed.
    let (now, judgment) = look_again(claim, suspect)
        .await
        .ok_or(KeepReason::Changed)?;
    ending.is_still_right(Ending::of(&now, judgment, mode)?)?;

    let end = pidfd.ended().map_err(|_| KeepReason::NotPermitted)?;
    let send = async |signal, limit| {
        signal_and_wait(&pidfd, &end, signal, sleep(limit))
            .await
            .map_err(|_| KeepReason::NotPermitted)
    };
    match &ending {
        Ending::Asked(reason) => {
            if !send(Signal::SIGTERM, ASKED_WAIT).await? {
                return Err(reason.clone());
            }
        }
        Ending::Forced(_) => {
            if !send(Signal::SIGTERM, TERM_WAIT).await? {
                // A process that sleeps in the kernel may take longer. Then the port stays busy,
                // and the report says so.
                send(Signal::SIGKILL, KILL_WAIT).await?;
                return Ok(ended(Some(EndSignal::Kill)));
            }
        }
    }
    Ok(ended(Some(EndSignal::Term)))
}

impl Ending {
    /// How a process is ended after a judgment.
    ///
    /// # Errors
    /// The reason why it is kept.
    fn of(suspect: &Suspect, judgment: Judgment, mode: CleanMode) -> Result<Self, KeepReason> {
        match judgment {
            Judgment::Stale(proof) => Ok(Self::Forced(proof)),
            Judgment::Kept(reason)
                if mode == CleanMode::Ask && Circumstances::may_be_asked(suspect, &reason) =>
            {
                Ok(Self::Asked(reason))
            }
            Judgment::Kept(reason) => Err(reason),
        }
    }

    /// Compares it with what the second look says.
    ///
    /// # Errors
    /// The reason why the process is kept after all.
    fn is_still_right(&self, now: Self) -> Result<(), KeepReason> {
        match (self, now) {
            (Self::Forced(_), Self::Forced(_)) | (Self::Asked(_), Self::Asked(_)) => Ok(()),
            (Self::Forced(_), Self::Asked(reason)) => Err(reason),
            (Self::Asked(_), Self::Forced(_)) => Err(KeepReason::Changed),
        }
    }

    /// Why, in a word and in a sentence.
    fn words(&self) -> (EndProof, String) {
        match self {
            Self::Forced(proof) => (proof.code(), proof.to_string()),
            Self::Asked(_) => (EndProof::Asked, "it was asked to stop, and did".to_owned()),
        }
    }
}
