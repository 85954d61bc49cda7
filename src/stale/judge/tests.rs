//! Random process trees, judged by the rules and by a model that is written another way round.

use proptest::prelude::*;

use super::super::report::KeptProcess;
use super::*;

const UNIT: &str = "/system.slice/gateway.service";
const OWN: &str = "/system.slice/agent.service";
const GROUPS: [&str; 6] = [
    UNIT,
    "/system.slice/gateway.service/sub",
    OWN,
    "/system.slice/gateway.service2",
    "/user.slice/session-1.scope",
    "",
];

fn process(pid: u32) -> Process {
    Process {
        suspended: false,
        pid,
        start_time: 100 + u64::from(pid),
        uid: 1000,
        program: Some("/usr/bin/gateway".into()),
        name: "gateway".into(),
        arguments: vec!["gateway".into(), "run".into()],
        group: String::new(),
        is_user_manager: false,
    }
}

fn silent(pid: u32) -> Suspect {
    Suspect {
        process: process(pid),
        gateway: Some(SuspectGateway::default()),
    }
}

fn healthy(pid: u32) -> Suspect {
    let gateway = SuspectGateway {
        answers: true,
        ..SuspectGateway::default()
    };
    Suspect {
        gateway: Some(gateway),
        ..silent(pid)
    }
}

fn identity(pid: u32, start_time: u64) -> ProcessIdentity {
    ProcessIdentity { pid, start_time }
}

fn naming(pid: u32) -> Circumstances {
    Circumstances {
        named: Some(pid),
        ..circumstances()
    }
}

fn circumstances() -> Circumstances {
    Circumstances {
        me: 50,
        users: [1000].into(),
        ancestors: vec![40, 30, 1],
        ..Circumstances::default()
    }
}

#[test]
fn one_that_nobody_looks_after_and_that_answers_nobody_is_stale() {
    let owner = Circumstances {
        owner: Some(identity(7, 107)),
        ..circumstances()
    };
    // The number was given again since the record was written.
    let recycled = Circumstances {
        drainers: vec![identity(7, 99)],
        ..circumstances()
    };
    for (circumstances, proof) in [
        (circumstances(), EndProof::Unknown),
        (owner, EndProof::Silent),
        (recycled, EndProof::Unknown),
    ] {
        assert_eq!(circumstances.judge(&silent(7)), Judgment::Stale(proof));
    }
}

#[test]
fn a_sidecar_kills_neither_its_gateway_nor_anybody_above() {
    for pid in [50, 40, 30, 1] {
        assert!(
            matches!(
                circumstances().judge(&silent(pid)),
                Judgment::Kept(KeepCode::Myself | KeepCode::Ancestor)
            ),
            "{pid}"
        );
        assert!(
            matches!(naming(pid).judge(&silent(pid)), Judgment::Kept(_)),
            "not even when it is named: {pid}"
        );
    }
}

#[test]
fn process_1_is_kept_though_this_command_came_from_outside_of_its_container() {
    for named in [None, Some(1)] {
        let outside = Circumstances {
            ancestors: vec![],
            owner: Some(identity(1, 101)),
            named,
            ..circumstances()
        };
        assert_eq!(
            outside.judge(&silent(1)),
            Judgment::Kept(KeepCode::First),
            "{named:?}"
        );
    }
}

#[test]
fn a_healthy_gateway_is_kept_whatever_the_records_say() {
    assert_eq!(
        circumstances().judge(&healthy(7)),
        Judgment::Kept(KeepCode::Answers)
    );
    let mut far = silent(7);
    far.gateway = Some(SuspectGateway {
        out_of_reach: true,
        ..SuspectGateway::default()
    });
    assert_eq!(
        circumstances().judge(&far),
        Judgment::Kept(KeepCode::OutOfReach)
    );
    let mut managed = silent(7);
    managed.gateway = Some(SuspectGateway {
        main_of: Some("web.service".into()),
        ..SuspectGateway::default()
    });
    assert_eq!(
        circumstances().judge(&managed),
        Judgment::Kept(KeepCode::MainOfOther)
    );
    assert_eq!(
        KeptProcess::new(&managed, KeepCode::MainOfOther).why,
        "it is the main process of web.service"
    );
    let drains = Circumstances {
        drainers: vec![identity(7, 107)],
        ..circumstances()
    };
    assert_eq!(drains.judge(&silent(7)), Judgment::Kept(KeepCode::Drains));
}

#[test]
fn who_is_suspended_or_started_this_command_is_no_leftover() {
    let mut suspended = silent(7);
    suspended.process.suspended = true;
    let judgment = circumstances().judge(&suspended);
    assert_eq!(judgment, Judgment::Kept(KeepCode::Suspended));
    assert_eq!(
        naming(7).judge(&suspended),
        Judgment::Stale(EndProof::Named)
    );
    for (start_time, kept) in [(107, true), (0, true), (106, false)] {
        let lost_its_parent = Circumstances {
            started_from: Some(identity(7, start_time)),
            ..naming(7)
        };
        let judgment = lost_its_parent.judge(&silent(7));
        assert_eq!(
            judgment == Judgment::Kept(KeepCode::Ancestor),
            kept,
            "{start_time}"
        );
    }
}

#[test]
fn a_foreign_program_goes_only_when_it_is_named() {
    let mut foreign = Suspect {
        gateway: None,
        ..silent(7)
    };
    assert_eq!(
        circumstances().judge(&foreign),
        Judgment::Kept(KeepCode::Foreign)
    );
    assert_eq!(naming(7).judge(&foreign), Judgment::Stale(EndProof::Named));
    foreign.process.uid = 0;
    assert_eq!(
        naming(7).judge(&foreign),
        Judgment::Kept(KeepCode::OtherUser)
    );
}

#[test]
fn the_service_manager_is_never_signalled() {
    let systemd = |pid, is_user_manager| Suspect {
        process: Process {
            program: Some("/usr/lib/systemd/systemd".into()),
            arguments: vec!["systemd".into(), "--user".into()],
            is_user_manager,
            ..process(pid)
        },
        gateway: None,
    };
    for (pid, is_user_manager, judgment) in [
        (1, false, Judgment::Kept(KeepCode::Manager)),
        (7, true, Judgment::Kept(KeepCode::Manager)),
        (7, false, Judgment::Stale(EndProof::Named)),
    ] {
        let named = Circumstances {
            ancestors: vec![],
            ..naming(pid)
        };
        let judged = named.judge(&systemd(pid, is_user_manager));
        assert_eq!(judged, judgment, "{pid}");
    }
}

/// A tree of processes: each one's parent comes before it, but for those that were reparented to
/// process 1.
#[derive(Clone, Debug)]
struct Tree {
    parents: Vec<usize>,
    suspects: Vec<Suspect>,
    me: usize,
    reparented: Vec<bool>,
    circumstances: Circumstances,
}

prop_compose! {
    fn member(pid: u32)(
        uid in prop_oneof![4 => Just(1000_u32), 1 => Just(0), 1 => Just(33)],
        group in prop::sample::select(&GROUPS[..]),
        gateway in prop::option::weighted(
            0.7,
            (any::<bool>(), prop::option::weighted(0.2, Just("web.service".to_owned())), prop::bool::weighted(0.2)),
        ),
        systemd in prop::bool::weighted(0.05),
    ) -> Suspect {
        let mut process = Process { uid, group: group.to_owned(), ..process(pid) };
        process.is_user_manager = systemd;
        Suspect { process, gateway: gateway.map(|(answers, main_of, shares_listener)| SuspectGateway { answers, main_of, shares_listener, of_this: false, out_of_reach: false }) }
    }
}

prop_compose! {
    /// A record may name a process, one that had its number before, or nobody.
    fn record(count: u32)(pid in 1..=count + 2, how in 0..7) -> ProcessIdentity {
        let start_time = match how {
            0..3 => 100 + u64::from(pid),
            3..6 => 0,
            _ => 99,
        };
        identity(pid, start_time)
    }
}

prop_compose! {
    fn tree()(count in 2_u32..24)(
        suspects in (1..=count).map(member).collect::<Vec<_>>(),
        parents in (0..count as usize).map(|index| 0..index.max(1)).collect::<Vec<_>>(),
        me in 0..count,
        reparented in prop::collection::vec(prop::bool::weighted(0.15), count as usize),
        owner in prop::option::of(record(count)),
        drainers in prop::collection::vec(record(count), 0..4),
        protected in prop::collection::btree_set(1..=count, 0..3),
        main in prop::option::of(1..=count),
        named in prop::option::weighted(0.2, 1..=count),
        (unit, own, root) in any::<(bool, bool, bool)>(),
    ) -> Tree {
        let circumstances = Circumstances {
            me: me + 1,
            users: if root { [1000, 0].into() } else { [1000].into() },
            own_service: own.then(|| OWN.to_owned()),
            unit_group: unit.then(|| UNIT.to_owned()),
            main,
            owner,
            drainers,
            protected,
            named,
            ancestors: vec![],
            started_from: None,
        };
        Tree { parents, suspects, me: me as usize, reparented, circumstances }
    }
}

impl Tree {
    /// The parent as it is now: one that lost its own belongs to process 1.
    fn parent(&self, index: usize) -> Option<usize> {
        let parent = if self.reparented[index] {
            0
        } else {
            self.parents[index]
        };
        (index != 0).then_some(parent)
    }

    fn is_above_me(&self, index: usize) -> bool {
        std::iter::successors(self.parent(self.me), |at| self.parent(*at))
            .any(|above| above == index)
    }

    /// The rules again, from the other end: what must all be so before a process may be signalled.
    fn may_be_signalled(&self, index: usize) -> bool {
        let (circumstances, suspect) = (&self.circumstances, &self.suspects[index]);
        let process = &suspect.process;
        let same = |record: &ProcessIdentity| {
            record.pid == process.pid && [0, process.start_time].contains(&record.start_time)
        };
        let outside = |group: &Option<String>| match group {
            Some(group) => {
                process.group != *group && !process.group.starts_with(&format!("{group}/"))
            }
            None => true,
        };
        let touchable = index != self.me
            && !self.is_above_me(index)
            && !process.is_service_manager()
            && !circumstances.protected.contains(&process.pid)
            && circumstances.main != Some(process.pid)
            && outside(&circumstances.unit_group)
            && outside(&circumstances.own_service)
            && circumstances.users.contains(&process.uid);
        let proven = suspect.gateway.as_ref().is_some_and(|gateway| {
            let owns = circumstances.owner.as_ref().is_some_and(same);
            !gateway.answers
                && gateway.main_of.is_none()
                && (owns || !gateway.shares_listener)
                && !circumstances.drainers.iter().any(same)
        });
        touchable && (proven || circumstances.named == Some(process.pid))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn no_signal_to_anything_that_is_not_proven_stale(mut tree in tree()) {
        let above: Vec<u32> = (0..tree.suspects.len()).filter(|index| tree.is_above_me(*index)).map(|index| index as u32 + 1).collect();
        tree.circumstances.ancestors = above;
        for (index, suspect) in tree.suspects.iter().enumerate() {
            let stale = matches!(tree.circumstances.judge(suspect), Judgment::Stale(_));
            prop_assert_eq!(stale, tree.may_be_signalled(index), "{:?}", suspect);
        }
    }
}
