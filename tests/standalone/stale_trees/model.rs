//! What must come of a tree: written from the rules of the design, not from the program.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::tree::{Kind, Mood, Start, Tree, Until};

/// Who holds a listener: a member, or gatewayctl itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Ctl,
    Member(usize),
}

/// What must come of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Those to be ended, and the proof.
    pub killed: BTreeMap<Who, &'static str>,
    /// Those to be kept, and the reason.
    pub kept: BTreeMap<Who, &'static str>,
    pub state: &'static str,
    pub exit: i32,
}

impl Tree {
    pub fn outcome(&self) -> Outcome {
        let (mut killed, mut kept) = (BTreeMap::new(), BTreeMap::new());
        for who in self.seen() {
            let verdict = match who {
                Who::Ctl => Err("self"),
                Who::Member(number) => self.verdict(number),
            };
            match verdict {
                Ok(proof) => killed.insert(who, proof),
                Err(reason) => kept.insert(who, reason),
            };
        }
        let gone = |who: &Who| !self.dry_run && killed.contains_key(who);
        let left: Vec<(IpAddr, Vec<Who>)> = self
            .sockets()
            .into_iter()
            .map(|(ip, holders)| (ip, holders.into_iter().filter(|who| !gone(who)).collect()))
            .collect();
        let hidden = left
            .iter()
            .any(|(_, holders)| !holders.is_empty() && !holders.iter().any(|who| self.sees(*who)));
        let mut holders = left
            .iter()
            .flat_map(|(_, holders)| holders)
            .filter(|who| self.sees(**who));
        let strangers = holders.clone().any(|who| !self.is_ours(*who));
        let state = match (strangers || hidden, holders.next()) {
            (true, _) => "held",
            (false, Some(_)) => "ours",
            (false, None) => "free",
        };
        let exit = if state == "held" && !self.dry_run {
            5
        } else {
            0
        };
        Outcome {
            killed,
            kept,
            state,
            exit,
        }
    }

    fn verdict(&self, number: usize) -> Result<&'static str, &'static str> {
        let member = &self.members[number];
        if self.is_above_ctl(number) {
            return Err("ancestor");
        }
        if self.protected.contains(&number) {
            return Err("protected");
        }
        if member.nobody != self.caller_is_nobody() && !(member.nobody && self.nobodys_state) {
            return Err("other-user");
        }
        if self.named == Some(number) {
            return Ok("named");
        }
        if member.kind != Kind::Gateway {
            return Err("foreign");
        }
        if self.drains(number) {
            return Err("drains");
        }
        if member.mood == Mood::Stopped {
            return Err("suspended");
        }
        match (self.owns(number), self.answers(number)) {
            (true, true) => Err("owns"),
            (true, false) => Ok("silent"),
            (false, true) => Err("answers"),
            (false, false) if self.is_beside_a_healthy_one(number) => Err("beside"),
            (false, false) => Ok("unknown"),
        }
    }

    /// Whether a healthy gateway, which may be asked, shares the listener.
    fn is_beside_a_healthy_one(&self, number: usize) -> bool {
        let asked = |other: usize| {
            let member = &self.members[other];
            let ours =
                member.nobody == self.caller_is_nobody() || member.nobody && self.nobodys_state;
            member.kind == Kind::Gateway
                && !self.is_above_ctl(other)
                && !self.protected.contains(&other)
                && ours
        };
        let healthy = |other: usize| {
            other != number && self.members[other].shares && asked(other) && self.answers(other)
        };
        self.members[number].shares && (0..self.members.len()).any(healthy)
    }

    /// Every listener with all that hold it.
    fn sockets(&self) -> Vec<(IpAddr, Vec<Who>)> {
        let members = || self.members.iter().enumerate();
        let own =
            members().filter_map(|(number, member)| Some((member.own?, vec![Who::Member(number)])));
        let shared = self.shared.map(|ip| {
            let sharing = members()
                .filter(|(_, member)| member.shares)
                .map(|(number, _)| Who::Member(number));
            let ctl = (self.leaks && self.members[self.caller].shares).then_some(Who::Ctl);
            (ip, sharing.chain(ctl).collect())
        });
        own.chain(shared)
            .filter(|(_, holders): &(IpAddr, Vec<Who>)| !holders.is_empty())
            .collect()
    }

    /// Those on the port that gatewayctl can see.
    fn seen(&self) -> Vec<Who> {
        self.sockets()
            .into_iter()
            .flat_map(|(_, holders)| holders)
            .filter(|who| self.sees(*who))
            .collect()
    }

    fn sees(&self, who: Who) -> bool {
        match who {
            Who::Ctl => true,
            Who::Member(number) => !self.caller_is_nobody() || self.members[number].nobody,
        }
    }

    fn caller_is_nobody(&self) -> bool {
        self.members[self.caller].nobody
    }

    /// Whether the record can be read.
    fn has_record(&self) -> bool {
        !self.caller_is_nobody() || self.nobodys_state
    }

    fn is_above_ctl(&self, number: usize) -> bool {
        let mut at = Some(self.caller);
        while let Some(above) = at {
            if above == number {
                return true;
            }
            at = self.members[above]
                .starter
                .filter(|_| !self.members[above].reparented);
        }
        false
    }

    /// A record counts only for processes of the user who may write it, and only where the start
    /// tells that it is the same process.
    fn tells(&self, number: usize, start: Start) -> bool {
        let is_writers = self.members[number].nobody == self.nobodys_state;
        self.has_record() && is_writers && start == Start::Right
    }

    fn owns(&self, number: usize) -> bool {
        self.owner
            .is_some_and(|(owner, start)| owner == number && self.tells(number, start))
    }

    fn drains(&self, number: usize) -> bool {
        let recorded = |&(drainer, start, until): &(usize, Start, Until)| {
            drainer == number && self.tells(number, start) && until != Until::Passed
        };
        self.owner.is_some() && self.drainers.iter().any(recorded)
    }

    /// Part of this instance, so that its hold is as it should be.
    fn is_ours(&self, who: Who) -> bool {
        match who {
            Who::Ctl => true,
            Who::Member(number) => self.owns(number) || self.drains(number),
        }
    }

    /// Whether it answers at its control socket, or somebody does at an address that, as far as
    /// gatewayctl sees, leads to it alone or to gateways alone.
    fn answers(&self, number: usize) -> bool {
        if self.members[number].control && self.members[number].mood == Mood::Answers {
            return true;
        }
        self.sockets().into_iter().any(|(_, holders)| {
            let seen: Vec<&Who> = holders.iter().filter(|who| self.sees(**who)).collect();
            let speaks = |who: &Who| match who {
                Who::Ctl => false,
                Who::Member(number) => {
                    self.members[*number].mood == Mood::Answers
                        && self.members[*number].kind != Kind::Foreign
                }
            };
            let is_gateway = |who: &&Who| match who {
                Who::Ctl => false,
                Who::Member(number) => self.members[*number].kind == Kind::Gateway,
            };
            let me = &Who::Member(number);
            let is_door = seen == [me] || seen.contains(&me) && seen.iter().all(is_gateway);
            is_door && holders.iter().any(speaks)
        })
    }
}
