//! What each cell must come to.

use crate::faults::Fault;
use crate::moments::{Moment, Place, Progress};

/// How a restart with a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next generation serves.
    Restarted,
    /// The old generation serves on, and who asked was told why.
    KeptOld,
    /// The old process died, and the fresh one serves.
    TookOver,
    /// The fresh process died after it had the service, and the old one has it again.
    TookBack,
    /// The new server died while the old one finished its work, which serves again.
    HandedBack,
    /// A stop: all that was begun is finished, nothing is left.
    Stopped,
    /// The only process died; the next start needs no help.
    Died,
}

impl Outcome {
    /// Its word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Restarted => "restarted",
            Self::KeptOld => "kept old",
            Self::TookOver => "took over",
            Self::TookBack => "took back",
            Self::HandedBack => "handed back",
            Self::Stopped => "stopped",
            Self::Died => "died",
        }
    }

    /// Whether no process is left.
    pub fn ends(self) -> bool {
        matches!(self, Self::Stopped | Self::Died)
    }
}

/// Whose work a fault may cut; nothing else may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    Nothing,
    /// What a killed process was answering.
    OfTheKilled,
    /// A process that is told to stop closes connections on which nothing is asked.
    SilentConnections,
    /// Who comes to the front door when its limit is reached is told to come again, or gets the place
    /// of a client that asks nothing.
    TurnedAway,
}

/// How a cell must end, or why it is no cell.
pub fn expected(fault: Fault, moment: Moment) -> Result<Outcome, &'static str> {
    use Fault::*;
    let progress = moment.progress();
    if matches!(fault, KillNew | FreezeNew | TermNew) && !moment.has_new_process() {
        return Err(match moment.place() {
            Place::SameProcess => "no new process",
            Place::FreshProcess => "no new process yet",
        });
    }
    if matches!(fault, KillNewServer | FreezeNewServer) && !moment.has_new_server() {
        return Err("no new server yet");
    }
    if fault == KillAsker && matches!(moment, Moment::AnswerLasts(_)) {
        return Err("it has its answer");
    }
    Ok(match fault {
        KillOld if !moment.has_new_process() => Outcome::Died,
        KillOld => Outcome::TookOver,
        KillNew if progress == Progress::Served => Outcome::TookBack,
        KillNew => Outcome::KeptOld,
        // The old process only finishes its work.
        TermOld | IntOld if progress == Progress::Served => Outcome::Restarted,
        TermOld | IntOld | Stop => Outcome::Stopped,
        // It is no gateway yet.
        TermNew if progress == Progress::Preparing => Outcome::KeptOld,
        TermNew => Outcome::Stopped,
        BadReload | NoConfiguration if reads_configuration_later(moment) => Outcome::KeptOld,
        KillNewServer if matches!(moment, Moment::ServerStarts(_)) => Outcome::KeptOld,
        _ => Outcome::Restarted,
    })
}

/// Whether the fresh process has not read its configuration yet.
fn reads_configuration_later(moment: Moment) -> bool {
    matches!(
        moment,
        Moment::Failpoint("old.before-spawn" | "new.started")
    )
}

/// What it may come to as well, where what is not held may have been faster: the fresh process, or
/// the last answers of the old server.
pub fn or_else(fault: Fault, moment: Moment) -> Option<Outcome> {
    match (fault, moment) {
        (Fault::BadReload | Fault::NoConfiguration, Moment::Failpoint("old.spawned")) => {
            Some(Outcome::KeptOld)
        }
        (Fault::KillNew, Moment::Failpoint("old.after-go")) => Some(Outcome::TookBack),
        (Fault::KillNewServer, Moment::ServerStarts(_)) => None,
        (Fault::KillNewServer, _) => Some(Outcome::HandedBack),
        _ => None,
    }
}

/// The same as words of the table.
pub fn words(fault: Fault, moment: Moment) -> String {
    let word = match expected(fault, moment) {
        Ok(outcome) => outcome.word().to_owned(),
        Err(why) => return format!("- ({why})"),
    };
    match or_else(fault, moment) {
        Some(other) => format!("{word} or {}", other.word()),
        None => word,
    }
}

/// What a cell may cost.
pub fn loss(fault: Fault) -> Loss {
    match fault {
        Fault::KillOld | Fault::KillNew | Fault::KillOldServer | Fault::KillNewServer => {
            Loss::OfTheKilled
        }
        Fault::TermOld | Fault::IntOld => Loss::SilentConnections,
        Fault::ClientsTakeDescriptors => Loss::TurnedAway,
        _ => Loss::Nothing,
    }
}
