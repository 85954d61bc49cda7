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
    /// Requests that it fulfils as well.
    pub(super) joined: Vec<String>,
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
            kind: self.kind,
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
            None if fulfils => self.joined.push(request.id),
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
        let joined = self.joined.iter();
        let joined = joined.map(|id| answer(id.clone(), coalesced.clone()));
        leader.chain(joined).collect()
    }

    pub(super) fn everybody(&self) -> impl Iterator<Item = String> {
        let next = self.then.iter().flat_map(NextBuild::everybody);
        self.leader.iter().chain(&self.joined).cloned().chain(next)
    }
}
