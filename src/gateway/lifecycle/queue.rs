//! The requests that wait until the build under way has ended.

use std::collections::VecDeque;

use super::vocabulary::{GenerationRequest, RequestKind};

/// A build that is to follow, and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct NextBuild {
    pub request: GenerationRequest,
    pub joined: Vec<String>,
}

impl NextBuild {
    pub fn everybody(&self) -> impl Iterator<Item = String> {
        std::iter::once(&self.request.id)
            .chain(&self.joined)
            .cloned()
    }
}

/// What follows, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Queue(VecDeque<NextBuild>);

impl Queue {
    /// Lines a request up, with those that joined it. Where one that waits does as much, it joins that
    /// one; what waits and does no more than this one joins it.
    pub fn add(&mut self, request: GenerationRequest, joined: Vec<String>) {
        let mut next = NextBuild { request, joined };
        let covers = |waiting: &&mut NextBuild| waiting.request.covers(&next.request);
        if let Some(waiting) = self.0.iter_mut().find(covers) {
            return waiting.joined.extend(next.everybody());
        }
        self.0.retain(|waiting| {
            let is_part = next.request.covers(&waiting.request);
            if is_part {
                next.joined.extend(waiting.everybody());
            }
            !is_part
        });
        self.0.push_back(next);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn pop(&mut self) -> Option<NextBuild> {
        self.0.pop_front()
    }

    pub fn everybody(&self) -> impl Iterator<Item = String> {
        self.0.iter().flat_map(NextBuild::everybody)
    }
}

impl GenerationRequest {
    /// Whether this one, carried out later than both were asked for, does what the other one wants.
    fn covers(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (RequestKind::Restart, RequestKind::Restart) => {
                self.place.strength() >= other.place.strength()
            }
            // It reads the configuration and starts every sidecar.
            (RequestKind::Restart, _) => true,
            (one, other) => one == other,
        }
    }
}
