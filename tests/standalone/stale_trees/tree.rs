//! A random tree: who is there, what each holds, and what is on record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::support::random::Random;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A gateway that runs.
    Gateway,
    /// A gateway program that only checks a configuration.
    Check,
    /// `sleep`.
    Foreign,
}

/// How a member behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mood {
    /// It answers HTTP on all that it holds.
    Answers,
    /// It accepts nothing.
    Silent,
    /// It was stopped by SIGSTOP.
    Stopped,
}

/// One process; its place in [`Tree::members`] is its number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The member that started it; a smaller number. None for the first.
    pub starter: Option<usize>,
    /// Whether whoever started it is not its parent any more.
    pub reparented: bool,
    /// Whether it belongs to nobody, as do all that it starts.
    pub nobody: bool,
    pub kind: Kind,
    pub mood: Mood,
    /// Whether it has a control socket, and answers there when it answers at all.
    pub control: bool,
    /// Whether SIGTERM does nothing to it.
    pub stubborn: bool,
    /// Whether its program lies beside gatewayctl.
    pub beside: bool,
    /// The address of a listener of its own.
    pub own: Option<IpAddr>,
    /// Whether it holds the shared listener.
    pub shares: bool,
}

/// What stands in the record about a process's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Right,
    Unknown,
    Wrong,
}

/// When a drainer's budget ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Never,
    Later,
    Passed,
}

/// A tree, and how it is cleaned.
#[derive(Clone, Debug)]
pub struct Tree {
    pub members: Vec<Member>,
    /// The address of the listener that the first member passes on.
    pub shared: Option<IpAddr>,
    /// Who runs gatewayctl.
    pub caller: usize,
    /// Whether gatewayctl inherits the shared listener.
    pub leaks: bool,
    pub dry_run: bool,
    pub protected: Vec<usize>,
    /// Who is named with --force --pid.
    pub named: Option<usize>,
    /// Who the record says owns the instance.
    pub owner: Option<(usize, Start)>,
    /// Whether the record is of this boot.
    pub this_boot: bool,
    pub drainers: Vec<(usize, Start, Until)>,
    /// Whether the state directory is nobody's.
    pub nobodys_state: bool,
}

const MEMBERS: usize = 9;

impl Tree {
    pub fn random(random: &mut Random) -> Self {
        let loopback = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let mut free = vec![
            loopback(1),
            loopback(2),
            loopback(3),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        let shared = random
            .percent(50)
            .then(|| free.swap_remove(random.below(free.len())));
        let count = 1 + random.below(MEMBERS);
        let mut members: Vec<Member> = Vec::new();
        for number in 0..count {
            let starter = (number > 0).then(|| random.below(number));
            let of_nobody = starter.is_some_and(|starter| members[starter].nobody);
            let kind = random.one_of(&[
                Kind::Gateway,
                Kind::Gateway,
                Kind::Gateway,
                Kind::Gateway,
                Kind::Check,
                Kind::Foreign,
            ]);
            let own = (!free.is_empty() && random.percent(50))
                .then(|| free.swap_remove(random.below(free.len())));
            members.push(Member {
                starter,
                reparented: random.percent(30),
                nobody: of_nobody || random.percent(12),
                kind,
                mood: random.one_of(&[Mood::Answers, Mood::Silent, Mood::Silent, Mood::Stopped]),
                control: random.percent(30),
                stubborn: random.percent(50),
                beside: random.percent(90),
                own,
                shares: shared.is_some() && random.percent(50),
            });
        }
        let caller = random.below(count);
        // It has something to do.
        let calls = &mut members[caller];
        calls.kind = if calls.kind == Kind::Foreign {
            Kind::Gateway
        } else {
            calls.kind
        };
        calls.mood = if calls.mood == Mood::Stopped {
            Mood::Silent
        } else {
            calls.mood
        };
        let mut some = |chance: usize| -> Vec<usize> {
            (0..count).filter(|_| random.percent(chance)).collect()
        };
        let (protected, drainers) = (some(8), some(20));
        let start = |random: &mut Random| {
            random.one_of(&[
                Start::Right,
                Start::Right,
                Start::Right,
                Start::Unknown,
                Start::Wrong,
            ])
        };
        Self {
            members,
            shared,
            caller,
            leaks: random.percent(25),
            dry_run: random.percent(10),
            protected,
            named: random.percent(15).then(|| random.below(count)),
            owner: random
                .percent(60)
                .then(|| (random.below(count), start(random))),
            this_boot: random.percent(90),
            drainers: drainers
                .into_iter()
                .map(|number| {
                    (
                        number,
                        start(random),
                        random.one_of(&[Until::Never, Until::Later, Until::Passed]),
                    )
                })
                .collect(),
            nobodys_state: random.percent(30),
        }
    }

    /// Where a member listens, with the port of this run.
    pub fn at(ip: IpAddr, port: u16) -> SocketAddr {
        SocketAddr::new(ip, port)
    }
}
