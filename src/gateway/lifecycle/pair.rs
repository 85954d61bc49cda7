//! A hand-over as two machines that talk, every order of events to a stated depth: messages may be
//! late, builds may fail, either process may be killed or told to stop at any moment.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::*;

/// How many events deep the exploration goes. A whole hand-over takes nine; long before this
/// nothing new is found.
const DEPTH: usize = 40;

const NOW: Duration = Duration::from_secs(100);

const STOP: Event = Event::Stop {
    at_once: false,
    limit: FORCE_EXIT,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Said {
    Ready,
    Serving,
    Failed,
    Go,
    Abort,
    Gone,
    /// The new process offers the service back.
    Back,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PairProcess {
    machine: Lifecycle,
    building: Option<u64>,
    accepts: bool,
    winding: bool,
    code: Option<u8>,
    killed: bool,
}

impl PairProcess {
    fn new(machine: Lifecycle) -> Self {
        Self {
            machine,
            building: None,
            accepts: false,
            winding: false,
            code: None,
            killed: false,
        }
    }

    fn lives(&self) -> bool {
        self.code.is_none() && !self.killed
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PairWorld {
    old: PairProcess,
    new: Option<PairProcess>,
    to_old: VecDeque<Said>,
    to_new: VecDeque<Said>,
    asked: u8,
    stopped: bool,
    failed: bool,
    /// The old process has said that it can serve again.
    returning: bool,
    answers: BTreeMap<String, u8>,
}

#[derive(Clone, Copy, Debug)]
enum PairChoice {
    Ask(Placement),
    Stop,
    StopNew,
    Built(bool, bool),
    HearOld,
    HearNew,
    Quiet(bool),
    KillOld,
    KillNew,
    /// A sidecar of the generation that serves dies: the one before serves again, here or in the
    /// predecessor.
    Died(bool),
}

const CHOICES: [PairChoice; 17] = [
    PairChoice::Ask(Placement::Successor { update: false }),
    PairChoice::Ask(Placement::Here),
    PairChoice::Stop,
    PairChoice::StopNew,
    PairChoice::Built(false, true),
    PairChoice::Built(false, false),
    PairChoice::Built(true, true),
    PairChoice::Built(true, false),
    PairChoice::HearOld,
    PairChoice::HearNew,
    PairChoice::Quiet(false),
    PairChoice::Quiet(true),
    PairChoice::KillOld,
    PairChoice::KillNew,
    PairChoice::Died(false),
    PairChoice::Died(true),
    PairChoice::Ask(Placement::Successor { update: true }),
];

impl PairWorld {
    fn new() -> Self {
        let (mut machine, _) = Lifecycle::start(StartMode::First(Fallback::End));
        machine.step(Event::Built(1), NOW);
        let mut old = PairProcess::new(machine);
        old.accepts = true;
        Self {
            old,
            new: None,
            to_old: VecDeque::new(),
            to_new: VecDeque::new(),
            asked: 0,
            stopped: false,
            failed: false,
            returning: false,
            answers: BTreeMap::new(),
        }
    }

    /// The world after this; none when it cannot happen now.
    fn after(&self, choice: PairChoice) -> Option<Self> {
        let mut world = self.clone();
        match choice {
            PairChoice::Ask(place) => {
                if world.asked == 2 || !world.old.lives() {
                    return None;
                }
                world.asked += 1;
                let id = world.asked.to_string();
                world.answers.insert(id.clone(), 0);
                let request = GenerationRequest {
                    id,
                    kind: RequestKind::Restart,
                    budget: Budget::Configured,
                    place,
                };
                world.step(false, Event::Asked(request));
            }
            PairChoice::Stop | PairChoice::StopNew => {
                let new = matches!(choice, PairChoice::StopNew);
                if world.stopped || !world.process(new)?.lives() {
                    return None;
                }
                world.stopped = true;
                world.step(new, STOP);
            }
            PairChoice::Built(new, well) => {
                let process = world.process(new).filter(|process| process.lives())?;
                let generation = process.building.take()?;
                let event = if well {
                    Event::Built(generation)
                } else {
                    Event::Broken(generation, String::new())
                };
                world.step(new, event);
            }
            PairChoice::HearOld => {
                let said = world.to_old.pop_front().filter(|_| world.old.lives())?;
                let generation = world.old.machine.last;
                let event = match said {
                    Said::Back => {
                        let can = matches!(world.old.machine.phase(), Phase::Yielded { .. });
                        world.returning = can;
                        world
                            .to_new
                            .push_back(if can { Said::Ready } else { Said::Failed });
                        return Some(world);
                    }
                    Said::Go | Said::Gone if said == Said::Go || world.returning => {
                        world.returning = false;
                        Event::Go
                    }
                    Said::Abort if world.returning => {
                        world.returning = false;
                        return Some(world);
                    }
                    Said::Abort => STOP,
                    Said::Ready => Event::SuccessorReady(generation),
                    Said::Serving => Event::SuccessorServes {
                        generation,
                        limit: None,
                    },
                    _ => Event::SuccessorLost(generation, String::new()),
                };
                world.step(false, event);
            }
            PairChoice::HearNew => {
                let said = world.to_new.pop_front()?;
                let new = world.new.as_ref().filter(|new| new.lives())?;
                let generation = new.machine.last;
                let handed = matches!(
                    new.machine.phase(),
                    Phase::Handing { .. } | Phase::Yielded { .. }
                );
                let event = match said {
                    Said::Ready => Event::SuccessorReady(generation),
                    Said::Serving => Event::SuccessorServes {
                        generation,
                        limit: None,
                    },
                    Said::Failed | Said::Gone if handed => {
                        Event::SuccessorLost(generation, String::new())
                    }
                    Said::Go => Event::Go,
                    Said::Abort => STOP,
                    _ => Event::Orphaned,
                };
                world.step(true, event);
            }
            PairChoice::Quiet(false) if world.returning => return None,
            PairChoice::Quiet(new) => {
                world.process(new).filter(|process| {
                    process.lives()
                        && (process.winding
                            || matches!(process.machine.phase(), Phase::Yielded { .. }))
                })?;
                world.step(new, Event::Quiet);
            }
            PairChoice::Died(new) => {
                let process = world.process(new).filter(|process| process.lives())?;
                let event = match process.machine.fallback() {
                    Some(_) => Event::ServingDied(process.machine.current()),
                    // Once is enough: it can be offered by one way, which is used up then.
                    None if new && process.machine.owns() && process.machine.last == 2 => {
                        Event::GiveBack
                    }
                    None => return None,
                };
                world.step(new, event);
            }
            PairChoice::KillOld | PairChoice::KillNew => {
                let new = matches!(choice, PairChoice::KillNew);
                let process = world.process(new).filter(|process| process.lives())?;
                process.killed = true;
                process.accepts = false;
                world.gone(new);
            }
        }
        Some(world)
    }

    fn process(&mut self, new: bool) -> Option<&mut PairProcess> {
        if new {
            self.new.as_mut()
        } else {
            Some(&mut self.old)
        }
    }

    fn gone(&mut self, new: bool) {
        if new {
            self.to_old.push_back(Said::Gone)
        } else {
            self.to_new.push_back(Said::Gone)
        }
    }

    fn step(&mut self, new: bool, event: Event) {
        let Some(process) = self.process(new) else {
            return;
        };
        let actions = process.machine.step(event, NOW);
        for action in actions {
            self.perform(new, action);
        }
    }

    fn perform(&mut self, new: bool, action: Action) {
        let Some(process) = self.process(new) else {
            return;
        };
        match action {
            Action::Build { generation, .. } => process.building = Some(generation),
            Action::Abandon(_) => {
                process.building = None;
                if new {
                    self.to_old.push_back(Said::Abort);
                }
                if !new && self.new.as_ref().is_some_and(PairProcess::lives) {
                    self.to_new.push_back(Said::Abort);
                }
            }
            Action::HandOver { generation, .. } => {
                let (machine, first) = Lifecycle::start(StartMode::Candidate { generation });
                self.new = Some(PairProcess::new(machine));
                (self.to_old, self.to_new) = (VecDeque::new(), VecDeque::new());
                first
                    .into_iter()
                    .for_each(|action| self.perform(true, action));
            }
            Action::Commit(_) if new => self.to_old.push_back(Said::Go),
            Action::Commit(_) => self.to_new.push_back(Said::Go),
            Action::HandBack { .. } => self.to_old.push_back(Said::Back),
            Action::ComeBack => {
                process.accepts = true;
                self.to_new.push_back(Said::Serving);
            }
            Action::TakeBack if new => self.to_old.push_back(Said::Abort),
            // What is lost is ended before anything else.
            Action::TakeBack => {
                if let Some(lost) = &mut self.new {
                    lost.killed = true;
                    lost.accepts = false;
                }
                self.to_old.clear();
            }
            Action::Announce => self.to_old.push_back(Said::Ready),
            Action::Own => {
                process.accepts = true;
                self.to_old.push_back(Said::Serving);
            }
            Action::Yield { .. } => process.accepts = false,
            Action::Resume => process.accepts = true,
            Action::Wind { .. } => {
                process.accepts = false;
                process.winding = true;
            }
            Action::Exit(code) => {
                process.accepts = false;
                process.code = Some(code);
                self.failed |= code != 0;
                if new && code != 0 {
                    self.to_old.push_back(Said::Failed);
                }
                self.gone(new);
            }
            Action::Answer { id, .. } => *self.answers.entry(id).or_default() += 1,
            // Only who has the service gives it back to an older generation.
            Action::ServeAgain { generation, failed } => {
                assert!(process.accepts && generation < failed, "{self:#?}");
            }
            Action::Serve { .. } | Action::Hurry { .. } | Action::Leave { .. } => {}
        }
    }

    fn check(&self, path: &[PairChoice]) {
        let new = self.new.as_ref().filter(|new| new.lives());
        let owners = usize::from(self.old.lives() && self.old.machine.owns())
            + usize::from(new.is_some_and(|new| new.machine.owns()));
        let passes = |process: &PairProcess| {
            matches!(
                process.machine.phase(),
                Phase::Handing {
                    committed: true,
                    ..
                } | Phase::Stopping { .. }
            )
        };
        let passing = passes(&self.old) || new.is_some_and(passes);
        assert!(
            owners < 2 || passing,
            "two owners after {path:?}: {self:#?}"
        );
        assert!(
            self.answers.values().all(|count| *count <= 1),
            "answered twice after {path:?}"
        );
        if self.old.code.is_some() && !self.old.killed {
            assert!(
                self.answers.values().all(|count| *count == 1),
                "no answer after {path:?}: {self:#?}"
            );
        }
        let serving = (self.old.lives() && self.old.accepts) || new.is_some_and(|new| new.accepts);
        let coming = new.is_some_and(|new| !new.machine.owned() && !self.to_new.is_empty())
            || (self.old.lives() && !self.to_old.is_empty());
        let reason =
            self.stopped || self.old.killed || self.new.as_ref().is_some_and(|new| new.killed);
        assert!(
            serving || coming || reason,
            "nobody serves after {path:?}: {self:#?}"
        );
        // One is dead, the other was not told to stop: then that one serves in the end.
        let alone = self.to_old.is_empty() && self.to_new.is_empty() && !self.stopped;
        if alone && self.old.killed && new.is_some() {
            assert!(
                serving,
                "the successor does not take over after {path:?}: {self:#?}"
            );
        }
        if alone && self.old.lives() && self.new.as_ref().is_some_and(|new| !new.lives()) {
            assert!(
                serving,
                "the old one does not go on after {path:?}: {self:#?}"
            );
        }
    }
}

#[test]
fn never_two_owners_and_never_none_without_a_reason() {
    let mut seen = HashSet::from([PairWorld::new()]);
    let mut layer = vec![(PairWorld::new(), Vec::new())];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for (world, path) in layer {
            for choice in CHOICES {
                let Some(after) = world.after(choice) else {
                    continue;
                };
                if seen.insert(after.clone()) {
                    let mut path: Vec<PairChoice> = path.clone();
                    path.push(choice);
                    after.check(&path);
                    next.push((after, path));
                }
            }
        }
        layer = next;
    }
    assert!(layer.is_empty(), "not all was seen");
    eprintln!("{} states", seen.len());
    assert!(seen.len() > 1_000, "only {} states", seen.len());
}
