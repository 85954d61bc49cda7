//! Random process trees, judged by the rules and by a model that is written another way round.

use proptest::prelude::*;

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
        pid,
        start_time: 100 + u64::from(pid),
        uid: 1000,
        program: Some("/usr/bin/gateway".into()),
        name: "gateway".into(),
        arguments: vec!["gateway".into(), "run".into()],
        group: String::new(),
    }
}

fn silent(pid: u32) -> Suspect {
    Suspect {
        process: process(pid),
        gateway: Some(SuspectGateway::default()),
    }
}

fn circumstances() -> Circumstances {
    Circumstances {
        me: 50,
        users: [1000].into(),
        ancestors: vec![40, 30, 1].into(),
        ..Circumstances::default()
    }
}

#[test]
fn one_that_nobody_looks_after_and_that_answers_nobody_is_stale() {
    assert_eq!(
        circumstances().judge(&silent(7)),
        Judgment::Stale(StaleProof::Unknown)
    );
    let owner = Circumstances {
        owner: Some(ProcessIdentity {
            pid: 7,
            start_time: 107,
        }),
        ..circumstances()
    };
    assert_eq!(owner.judge(&silent(7)), Judgment::Stale(StaleProof::Silent));
    // The number was given again since the record was written.
    let recycled = Circumstances {
        drainers: vec![ProcessIdentity {
            pid: 7,
            start_time: 99,
        }],
        ..circumstances()
    };
    assert_eq!(
        recycled.judge(&silent(7)),
        Judgment::Stale(StaleProof::Unknown)
    );
}

#[test]
fn a_sidecar_kills_neither_its_gateway_nor_anybody_above() {
    for pid in [50, 40, 30, 1] {
        assert!(
            matches!(
                circumstances().judge(&silent(pid)),
                Judgment::Kept(KeepReason::Myself | KeepReason::Ancestor)
            ),
            "{pid}"
        );
        let named = Circumstances {
            named: Some(pid),
            ..circumstances()
        };
        assert!(
            matches!(named.judge(&silent(pid)), Judgment::Kept(_)),
            "not even when it is named: {pid}"
        );
    }
}

#[test]
fn process_1_is_kept_though_this_command_came_from_outside_of_its_container() {
    let outside = Circumstances {
        ancestors: Ancestors::default(),
        owner: Some(ProcessIdentity {
            pid: 1,
            start_time: 101,
        }),
        ..circumstances()
    };
    assert_eq!(outside.judge(&silent(1)), Judgment::Kept(KeepReason::First));
    let named = Circumstances {
        named: Some(1),
        ..outside
    };
    assert_eq!(named.judge(&silent(1)), Judgment::Kept(KeepReason::First));
}

#[test]
fn a_healthy_gateway_is_kept_whatever_the_records_say() {
    let healthy = Suspect {
        gateway: Some(SuspectGateway {
            answers: true,
            ..SuspectGateway::default()
        }),
        ..silent(7)
    };
    assert_eq!(
        circumstances().judge(&healthy),
        Judgment::Kept(KeepReason::Answers)
    );
    let managed = Suspect {
        gateway: Some(SuspectGateway {
            main_of: Some("web.service".into()),
            ..SuspectGateway::default()
        }),
        ..silent(7)
    };
    assert_eq!(
        circumstances().judge(&managed),
        Judgment::Kept(KeepReason::MainOf("web.service".into()))
    );
    let drains = Circumstances {
        drainers: vec![ProcessIdentity {
            pid: 7,
            start_time: 107,
        }],
        ..circumstances()
    };
    assert_eq!(drains.judge(&silent(7)), Judgment::Kept(KeepReason::Drains));
}

#[test]
fn a_foreign_program_goes_only_when_it_is_named() {
    let foreign = Suspect {
        gateway: None,
        ..silent(7)
    };
    assert_eq!(
        circumstances().judge(&foreign),
        Judgment::Kept(KeepReason::Foreign)
    );
    assert_eq!(
        Circumstances {
            named: Some(7),
            ..circumstances()
        }
        .judge(&foreign),
        Judgment::Stale(StaleProof::Named)
    );
    let others = Suspect {
        process: Process {
            uid: 0,
            ..process(7)
        },
        ..foreign
    };
    assert_eq!(
        Circumstances {
            named: Some(7),
            ..circumstances()
        }
        .judge(&others),
        Judgment::Kept(KeepReason::OtherUser)
    );
}

#[test]
fn the_service_manager_is_never_signalled() {
    let systemd = |pid, arguments: &[&str]| Suspect {
        process: Process {
            program: Some("/usr/lib/systemd/systemd".into()),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            ..process(pid)
        },
        gateway: None,
    };
    let named = |pid| Circumstances {
        named: Some(pid),
        ancestors: Ancestors::default(),
        ..circumstances()
    };
    assert_eq!(
        named(1).judge(&systemd(1, &["/sbin/init"])),
        Judgment::Kept(KeepReason::Manager)
    );
    assert_eq!(
        named(7).judge(&systemd(7, &["systemd", "--user"])),
        Judgment::Kept(KeepReason::Manager)
    );
    assert_eq!(
        named(7).judge(&systemd(7, &["systemd"])),
        Judgment::Stale(StaleProof::Named)
    );
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
        if systemd {
            process.program = Some("/usr/lib/systemd/systemd".into());
            process.arguments.push("--user".to_owned());
        }
        Suspect { process, gateway: gateway.map(|(answers, main_of, beside)| SuspectGateway { answers, main_of, beside, of_this: false }) }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    (2_usize..24).prop_flat_map(|count| {
        let members: Vec<_> = (0..count).map(|index| member(index as u32 + 1)).collect();
        let parents: Vec<_> = (0..count).map(|index| 0..index.max(1)).collect();
        // Records may name a process, one that had its number before, or nobody.
        let identity = (
            1..=count as u32 + 2,
            prop_oneof![3 => Just(0_u64), 3 => Just(1), 1 => Just(2)],
        )
            .prop_map(|(pid, how)| ProcessIdentity {
                pid,
                start_time: match how {
                    0 => 100 + u64::from(pid),
                    1 => 0,
                    _ => 99,
                },
            });
        let pid = 1..=count as u32;
        (
            (
                members,
                parents,
                0..count,
                prop::collection::vec(prop::bool::weighted(0.15), count),
            ),
            prop::option::of(identity.clone()),
            prop::collection::vec(identity, 0..4),
            prop::collection::btree_set(pid.clone(), 0..3),
            (
                prop::option::of(pid.clone()),
                prop::option::weighted(0.2, pid),
                any::<bool>(),
                any::<bool>(),
                any::<bool>(),
            ),
        )
            .prop_map(
                |(
                    (suspects, parents, me, reparented),
                    owner,
                    drainers,
                    protected,
                    (main, named, unit, own, root),
                )| {
                    let circumstances = Circumstances {
                        me: me as u32 + 1,
                        users: if root {
                            [1000, 0].into()
                        } else {
                            [1000].into()
                        },
                        own_service: own.then(|| OWN.to_owned()),
                        unit_group: unit.then(|| UNIT.to_owned()),
                        main,
                        owner,
                        drainers,
                        protected,
                        named,
                        ancestors: Ancestors::default(),
                    };
                    Tree {
                        parents,
                        suspects,
                        me,
                        reparented,
                        circumstances,
                    }
                },
            )
    })
}

impl Tree {
    /// The parent as it is now: one that lost its own belongs to process 1.
    fn parent(&self, index: usize) -> Option<usize> {
        (index != 0).then(|| {
            if self.reparented[index] {
                0
            } else {
                self.parents[index]
            }
        })
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
            && !process.is_systemd()
            && !circumstances.protected.contains(&process.pid)
            && circumstances.main != Some(process.pid)
            && outside(&circumstances.unit_group)
            && outside(&circumstances.own_service)
            && circumstances.users.contains(&process.uid);
        let proven = suspect.gateway.as_ref().is_some_and(|gateway| {
            let owns = circumstances.owner.as_ref().is_some_and(same);
            !gateway.answers
                && gateway.main_of.is_none()
                && (owns || !gateway.beside)
                && !circumstances.drainers.iter().any(same)
        });
        touchable && (proven || circumstances.named == Some(process.pid))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12_000, ..ProptestConfig::default() })]

    #[test]
    fn no_signal_to_anything_that_is_not_proven_stale(mut tree in tree()) {
        let above: Vec<u32> = (0..tree.suspects.len()).filter(|index| tree.is_above_me(*index)).map(|index| index as u32 + 1).collect();
        tree.circumstances.ancestors = above.into();
        for (index, suspect) in tree.suspects.iter().enumerate() {
            let stale = matches!(tree.circumstances.judge(suspect), Judgment::Stale(_));
            prop_assert_eq!(stale, tree.may_be_signalled(index), "{:?}", suspect);
        }
    }
}
