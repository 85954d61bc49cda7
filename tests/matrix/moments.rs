//! The columns: at which moments of a restart a fault is tried.

use crate::support::handover::{NEW, OLD, TASK};

/// Where the next generation lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    SameProcess,
    FreshProcess,
}

/// A moment at which a restart is held until the fault is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// One of the processes pauses at this failpoint.
    Failpoint(&'static str),
    /// The new server was started, and does not listen yet.
    ServerStarts(Place),
    /// The new generation serves, and a client still reads an answer of the old one.
    AnswerLasts(Place),
}

/// How far the restart has come, which decides what a fault may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// One process; the next generation is not ready.
    Building,
    /// One process; the next generation serves, the old one finishes its work.
    Draining,
    /// There is no fresh process yet.
    Begun,
    /// The fresh process gets ready.
    Preparing,
    /// It is ready, and has not been told to take over.
    Ready,
    /// It was told to take over, and has not said that it serves.
    Committed,
    /// It serves; the old process finishes its work.
    Served,
}

impl Moment {
    /// All of them, one process first, then two in the order of a hand-over.
    pub fn all() -> Vec<Self> {
        let (same, fresh) = (Place::SameProcess, Place::FreshProcess);
        let tasks = TASK.map(Self::Failpoint);
        let mut all = vec![tasks[0], Self::ServerStarts(same)];
        all.extend(&tasks[1..]);
        all.push(Self::AnswerLasts(same));
        let mut steps: Vec<_> = OLD.into_iter().chain(NEW).map(Self::Failpoint).collect();
        steps.extend([Self::ServerStarts(fresh), Self::AnswerLasts(fresh)]);
        steps.sort_by_key(|moment| moment.progress());
        all.extend(steps);
        all
    }

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failpoint(name) => name,
            Self::ServerStarts(Place::SameProcess) => "server starts, same process",
            Self::ServerStarts(Place::FreshProcess) => "server starts, fresh process",
            Self::AnswerLasts(Place::SameProcess) => "answer lasts, same process",
            Self::AnswerLasts(Place::FreshProcess) => "answer lasts, fresh process",
        }
    }

    pub fn place(self) -> Place {
        match self {
            Self::Failpoint(name) if name.starts_with("task.") => Place::SameProcess,
            Self::Failpoint(_) => Place::FreshProcess,
            Self::ServerStarts(place) | Self::AnswerLasts(place) => place,
        }
    }

    /// # Panics
    /// At a failpoint that nobody has put in its place here.
    pub fn progress(self) -> Progress {
        match self {
            Self::ServerStarts(Place::SameProcess) => Progress::Building,
            Self::ServerStarts(Place::FreshProcess) => Progress::Preparing,
            Self::AnswerLasts(Place::SameProcess) => Progress::Draining,
            Self::AnswerLasts(Place::FreshProcess) => Progress::Served,
            Self::Failpoint(name) => match name {
                "task.build" => Progress::Building,
                "task.drain" => Progress::Draining,
                "old.before-spawn" => Progress::Begun,
                "old.spawned" | "old.release" | "new.started" | "new.alive" => Progress::Preparing,
                "old.before-mainpid" | "new.ready" => Progress::Ready,
                "old.after-mainpid" | "old.after-go" | "new.go" | "new.accepting"
                | "new.before-serving" => Progress::Committed,
                "old.served" | "old.yielded" => Progress::Served,
                other => panic!("{other} has no place in the order of a hand-over"),
            },
        }
    }

    /// Only what must not run twice is released.
    pub fn is_exclusive(self) -> bool {
        self == Self::Failpoint("old.release")
    }

    /// Whether the new server has a process.
    pub fn has_new_server(self) -> bool {
        match self {
            Self::ServerStarts(_) => true,
            _ => matches!(
                self.progress(),
                Progress::Draining | Progress::Ready | Progress::Committed | Progress::Served
            ),
        }
    }

    /// Whether there is a fresh process.
    pub fn has_new_process(self) -> bool {
        self.progress() >= Progress::Preparing
    }
}
