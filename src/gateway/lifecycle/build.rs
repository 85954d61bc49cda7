//! A generation under construction, and who waits for it.

use super::queue::Queue;
use super::vocabulary::{
    Action, Budget, GenerationRequest, Placement, RequestKind, RequestVerdict, answer,
};

/// A generation under construction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Build {
    pub(super) generation: u64,
    pub(super) kind: RequestKind,
    pub(super) budget: Budget,
    pub(super) place: Placement,
    /// The request it is for; none for the first.
    pub(super) leader: Option<String>,
    /// Requests that it fulfils as well, asked before it began.
    pub(super) joined: Vec<String>,
    /// The same, asked since.
    pub(super) late: Vec<String>,
    /// What comes next: asked for after this one had read the configuration, or more than it does.
    pub(super) then: Queue,
}

impl Build {
    pub(super) fn action(&self, persist: bool) -> Action {
        Action::Build {
            generation: self.generation,
            kind: self.kind.clone(),
            budget: self.budget,
            request: self.leader.clone(),
            persist,
        }
    }

    /// A restart joins a restart under way. What this build cannot fulfil any more waits.
    pub(super) fn ask(&mut self, request: GenerationRequest) {
        if self.then.is_empty() && self.fulfils(&request) {
            self.late.push(request.id);
        } else {
            self.then.add(request, Vec::new());
        }
    }

    fn fulfils(&self, request: &GenerationRequest) -> bool {
        let enough = match request.place {
            Placement::Here => true,
            Placement::Successor { update: false } => {
                matches!(self.place, Placement::Successor { .. })
            }
            // The program and the service manager must see an end or a start that comes after the
            // request.
            Placement::Successor { update: true } | Placement::Next { .. } => false,
        };
        // A reload waits even for a restart: that one has read the configuration already. So does the restart
        // of one sidecar: its program may have been replaced since.
        request.kind == RequestKind::Restart && self.kind == RequestKind::Restart && enough
    }

    /// Those for whom it was built have what they want.
    pub(super) fn done(&self) -> Vec<Action> {
        let generation = self.generation;
        let into = self.leader.clone().unwrap_or_else(|| "start".to_owned());
        let leader = self.leader.iter();
        let leader = leader.map(|id| answer(id.clone(), RequestVerdict::Done(generation)));
        let coalesced = RequestVerdict::Coalesced { into, generation };
        let joined = self.joined.iter().chain(&self.late);
        let joined = joined.map(|id| answer(id.clone(), coalesced.clone()));
        leader.chain(joined).collect()
    }

    pub(super) fn everybody(&self) -> impl Iterator<Item = String> {
        let all = self.leader.iter().chain(&self.joined).chain(&self.late);
        all.cloned().chain(self.then.everybody())
    }

    /// The request that this build is for, where request `id` joined it since it began.
    pub(super) fn joined_by(&self, id: &str) -> Option<&str> {
        let late = self.late.iter().any(|late| late == id);
        self.leader.as_deref().filter(|_| late)
    }

    /// The request that this build is for, for whose end request `id` waits.
    pub(super) fn awaited_by(&self, id: &str) -> Option<&str> {
        let waits = self.then.everybody().any(|waiting| waiting == id);
        self.leader.as_deref().filter(|_| waits)
    }

    /// It failed: those who failed with it, and what comes next. Who asked since it began was not
    /// tried, and what it asked for may be the mended one.
    pub(super) fn failed(self) -> (impl Iterator<Item = String>, Queue) {
        let mut late = self.late.into_iter();
        let mut then = self.then;
        if let Some(id) = late.next() {
            let request = GenerationRequest {
                id,
                kind: self.kind,
                budget: self.budget,
                place: self.place,
            };
            then.add(request, late.collect());
        }
        (self.leader.into_iter().chain(self.joined), then)
    }
}
