//! What happens to the run loop besides signals, calls and clocks: the reports of its tasks.

use super::building::BuildResult;
use super::config_source::Material;
use super::drain::budget::Cut;
use super::handover::{News, OfferedBack, PredecessorEnd, StartedSuccessor, ToSuccessor};
use super::obituary::Obituary;
use super::passage_wait::PassageReport;
use super::progress::CutWork;
use super::signals::SignalRequest;
use super::supervision::ManagerReport;
use super::watchdog::CheckResult;
use crate::control::protocol::Progress;
use crate::os::task::TaskEnd;
use crate::sidecar::SidecarNews;
use crate::state::passage::Passage;
use crate::state::restart_intent::Intent;

/// A report of a task.
#[derive(Debug)]
pub enum LoopEvent {
    /// A step of a request.
    Progress(Progress),
    /// A drain of sidecars had to cut.
    Cut(CutWork),
    /// This generation was built, or not.
    Built(u64, BuildResult),
    /// A sidecar of the current generation changed its state.
    SidecarChanged,
    /// A sidecar tells what somebody must know.
    SidecarNews(SidecarNews),
    /// Those who were held while the request of this id was carried out are answered, or take long; and
    /// what came of its passages.
    Settled(String, PassageReport),
    /// The passages of this generation were made.
    Passages(u64, Vec<Passage>),
    /// A generation that had taken over died, and the one before serves again.
    Relapsed(Obituary),
    /// The drain of this older generation has ended.
    Drained(u64, TaskEnd),
    /// A step on the way to an end is done.
    Step(&'static str),
    /// The drain before an end, or a stop, is done; it had to cut this.
    Quiet(TaskEnd<Cut>),
    /// The front door was asked whether it works.
    Checked(CheckResult),
    /// The successor that is to build this generation was started, or not.
    Started(u64, StartedSuccessor),
    /// The successor that builds this generation says something, or is gone.
    Successor(u64, News),
    /// The sidecars that must not run beside the successor's have ended; the successor builds this
    /// generation.
    Released(u64, TaskEnd),
    /// The successor that builds this generation was made the main process.
    MadeMain(u64, TaskEnd),
    /// A successor that did not take over is gone, and its sidecars with it.
    SuccessorEnded,
    /// After a hand-over, the successor offers the service back, or never will.
    OfferedBack(OfferedBack),
    /// After the service was handed back: how the sidecars of this process died.
    DiedEarly(Obituary),
    /// The predecessor says something, or is gone.
    Predecessor(Option<ToSuccessor>),
    /// A predecessor has ended.
    PredecessorEnded(PredecessorEnd),
    /// The waiter in front of this process has ended, though this process lives; none where it was
    /// gone before this process could look.
    FrontEnded(Option<PredecessorEnd>),
    /// What systemd says about our unit.
    Supervised(ManagerReport),
    /// A signal came, which belongs to this announced restart, if there is one.
    Signalled(SignalRequest, Option<Intent>),
    /// The configuration was read again, for this generation.
    Read(u64, Box<Result<Material, String>>),
    /// A SIGTERM is the first half of a restart.
    EndAsked {
        intent: Intent,
        /// The whole machine, or the user's manager, goes down.
        machine_stopping: bool,
    },
    /// After a hand-over, the last client is gone; this had to be cut.
    ClientsGone(TaskEnd<Cut>),
    /// In safe mode: the configuration file has changed.
    ConfigurationChanged,
}
