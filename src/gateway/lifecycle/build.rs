//! A generation under construction, and who waits for it.

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
    pub(super) then: Option<NextBuild>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct NextBuild {
    pub(super) request: GenerationRequest,
    pub(super) joined: Vec<String>,
}

impl NextBuild {
    pub(super) fn everybody(&self) -> impl Iterator<Item = String> {
        std::iter::once(&self.request.id)
            .chain(&self.joined)
            .cloned()
    }
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
        let fulfils = self.fulfils(&request);
        match &mut self.then {
            Some(next) if request.strength() > next.request.strength() => {
                let weaker = std::mem::replace(&mut next.request, request);
                next.joined.push(weaker.id);
            }
            Some(next) => next.joined.push(request.id),
            None if fulfils => self.late.push(request.id),
            None => {
                self.then = Some(NextBuild {
                    request,
                    joined: Vec::new(),
                })
            }
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
        // A reload waits even for a restart: that one has read the configuration already.
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
        let next = self.then.iter().flat_map(NextBuild::everybody);
        let all = self.leader.iter().chain(&self.joined).chain(&self.late);
        all.cloned().chain(next)
    }

    /// The request that this build is for, where request `id` joined it since it began.
    pub(super) fn joined_by(&self, id: &str) -> Option<&str> {
        let late = self.late.iter().any(|late| late == id);
        self.leader.as_deref().filter(|_| late)
    }

    /// It failed: those who failed with it, and what comes next. Who asked since it began was not
    /// tried, and what it asked for may be the mended one.
    pub(super) fn failed(self) -> (impl Iterator<Item = String>, Option<NextBuild>) {
        let mut late = self.late.into_iter();
        let then = match (self.then, late.next()) {
            (None, Some(id)) => Some(NextBuild {
                request: GenerationRequest {
                    id,
                    kind: self.kind,
                    budget: self.budget,
                    place: self.place,
                },
                joined: late.collect(),
            }),
            (then, first) => then.map(|mut next| {
                next.joined.extend(first.into_iter().chain(late));
                next
            }),
        };
        (self.leader.into_iter().chain(self.joined), then)
    }
}
