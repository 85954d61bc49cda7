//! What those who follow the gateway are told: how things stand when they begin, and each change.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::control::protocol::{
    GatewayEvent, ShutdownEvent, ShutdownReason, SidecarEvent, StateEvent, SubscribeParams,
};
use crate::control::server::{Reply, Subscribers};

/// How long the next process takes to answer, where this one never served: a gateway with a small
/// server starts within that.
const START: Duration = Duration::from_secs(1);

/// How the gateway and its sidecars stand.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayStanding {
    pub state: StateEvent,
    pub sidecars: Vec<SidecarEvent>,
}

/// What a process has to say about its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnouncedEnd {
    None,
    /// The service manager starts the next process when this one has ended.
    Restart,
    /// Another process serves already.
    Replaced,
    Stop,
}

/// What was told, and to whom.
#[derive(Debug)]
pub struct EventFeed {
    pub subscribers: Subscribers,
    /// What everybody was told; none while nobody follows.
    told: Option<GatewayStanding>,
    /// How long this process took until it served.
    start: Option<Duration>,
}

impl EventFeed {
    pub fn new(subscribers: Subscribers) -> Self {
        Self {
            subscribers,
            told: None,
            start: None,
        }
    }

    /// Whether anybody follows; else nothing has to be told.
    pub fn is_followed(&mut self) -> bool {
        let followed = !self.subscribers.is_empty();
        if !followed {
            self.told = None;
        }
        followed
    }

    /// The process serves, so long after it began.
    pub fn serves(&mut self, after: Duration) {
        self.start.get_or_insert(after);
    }

    /// Tells everybody that their connections end, or that they do not.
    pub fn announce(&self, end: AnnouncedEnd) {
        let restart = |after: Duration| ShutdownEvent {
            reason: ShutdownReason::Restart,
            restart_expected_ms: Some(after.as_millis() as u64),
        };
        self.subscribers.announce(match end {
            AnnouncedEnd::None => None,
            AnnouncedEnd::Restart => Some(restart(self.start.unwrap_or(START))),
            AnnouncedEnd::Replaced => Some(restart(Duration::ZERO)),
            AnnouncedEnd::Stop => Some(ShutdownEvent {
                reason: ShutdownReason::Stop,
                restart_expected_ms: None,
            }),
        });
    }

    /// Tells what has changed.
    pub fn tell(&mut self, now: GatewayStanding) {
        let Some(before) = self.told.replace(now) else {
            return;
        };
        let now = self.told.as_ref().unwrap_or(&before);
        if now.state != before.state {
            let state = GatewayEvent::State(now.state.clone());
            self.subscribers.publish(&state);
        }
        for sidecar in changed(&before.sidecars, &now.sidecars) {
            self.subscribers.publish(&GatewayEvent::Sidecar(sidecar));
        }
    }

    /// Somebody follows from now on, and is told how things stand.
    pub fn subscribe(&mut self, params: &SubscribeParams, now: GatewayStanding, reply: Reply) {
        self.tell(now.clone());
        let state = GatewayEvent::State(now.state.clone());
        let sidecars = now.sidecars.iter().cloned().map(GatewayEvent::Sidecar);
        let first: Vec<GatewayEvent> = std::iter::once(state).chain(sidecars).collect();
        self.subscribers.add(params.topics(), &first, reply);
        self.told = Some(now);
    }
}

/// The sidecars that are not as they were, and those that are gone.
fn changed(before: &[SidecarEvent], now: &[SidecarEvent]) -> Vec<SidecarEvent> {
    let was: BTreeMap<&str, &SidecarEvent> = { before.iter() }
        .map(|one| (one.name.as_str(), one))
        .collect();
    let changed = now
        .iter()
        .filter(|one| was.get(one.name.as_str()) != Some(one));
    let gone = before
        .iter()
        .filter(|one| !now.iter().any(|other| other.name == one.name))
        .map(|one| SidecarEvent {
            gone: true,
            ..one.clone()
        });
    changed.cloned().chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::SidecarStateName;

    fn sidecar(name: &str, pid: u32) -> SidecarEvent {
        SidecarEvent {
            name: name.into(),
            state: SidecarStateName::Ready,
            cause: None,
            generation: 1,
            pid,
            restarts: 0,
            failing: false,
            gone: false,
        }
    }

    #[test]
    fn only_what_changed_is_told_and_what_is_gone() {
        let before = [sidecar("a", 1), sidecar("b", 2), sidecar("c", 3)];
        let now = [sidecar("a", 1), sidecar("b", 4), sidecar("d", 5)];
        let told = changed(&before, &now);
        let names: Vec<(&str, bool)> = told.iter().map(|one| (&*one.name, one.gone)).collect();
        assert_eq!(names, [("b", false), ("d", false), ("c", true)]);
        assert!(changed(&now, &now).is_empty());
    }
}
