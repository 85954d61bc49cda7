//! The machine by example, then by every order of events.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn ask(id: &str, kind: RequestKind) -> Event {
    Event::Asked(GenerationRequest {
        id: id.into(),
        kind,
        budget: Budget::Configured,
        place: Placement::Here,
    })
}

fn stop(at_once: bool) -> Event {
    Event::Stop {
        at_once,
        limit: FORCE_EXIT,
    }
}

fn coalesced(id: &str, into: &str, generation: u64) -> Action {
    let into = into.to_owned();
    answer(id.into(), RequestVerdict::Coalesced { into, generation })
}

fn serving() -> Lifecycle {
    let (mut machine, first) = Lifecycle::start(StartMode::First(Fallback::End));
    assert!(matches!(first[..], [Action::Build { generation: 1, .. }]));
    machine.step(Event::Built(1), NOW);
    machine
}

#[test]
fn a_restart_builds_then_serves_then_answers() {
    let mut machine = serving();
    let actions = machine.step(ask("a", RequestKind::Restart), NOW);
    assert_eq!(
        actions,
        [Action::Build {
            generation: 2,
            kind: RequestKind::Restart,
            budget: Budget::Configured,
            request: Some("a".into()),
            persist: false
        }]
    );
    assert_eq!(machine.current(), 1, "the old one serves meanwhile");
    let actions = machine.step(Event::Built(2), NOW);
    assert_eq!(
        actions[0],
        Action::Serve {
            generation: 2,
            budget: Budget::Configured
        }
    );
    assert_eq!(actions[1], answer("a".into(), RequestVerdict::Done(2)));
}

#[test]
fn a_generation_that_fails_leaves_the_old_one_serving() {
    let mut machine = serving();
    machine.step(ask("a", RequestKind::Restart), NOW);
    let actions = machine.step(Event::Broken(2, "no".into()), NOW);
    assert_eq!(
        actions,
        [answer("a".into(), RequestVerdict::Failed("no".into()))]
    );
    assert_eq!((machine.current(), machine.phase()), (1, &Phase::Serving));
    assert!(
        matches!(
            machine.step(ask("b", RequestKind::Restart), NOW)[..],
            [Action::Build { generation: 3, .. }]
        ),
        "numbers are not reused"
    );
}

#[test]
fn a_second_restart_joins_the_first_and_a_reload_waits_its_turn() {
    let mut machine = serving();
    machine.step(ask("a", RequestKind::Restart), NOW);
    assert_eq!(machine.step(ask("b", RequestKind::Restart), NOW), []);
    assert_eq!(machine.step(ask("c", RequestKind::Reload), NOW), []);
    assert_eq!(machine.step(ask("d", RequestKind::Reload), NOW), []);
    let actions = machine.step(Event::Built(2), NOW);
    assert!(actions.contains(&coalesced("b", "a", 2)));
    assert!(
        matches!(&actions[3], Action::Build { generation: 3, kind: RequestKind::Reload, request: Some(id), .. } if id == "c")
    );
    let actions = machine.step(Event::Built(3), NOW);
    assert!(actions.contains(&coalesced("d", "c", 3)));
}

#[test]
fn a_restart_that_joined_one_that_failed_is_tried_once_by_itself() {
    let mut machine = serving();
    machine.step(ask("a", RequestKind::Restart), NOW);
    machine.step(ask("b", RequestKind::Restart), NOW);
    machine.step(ask("c", RequestKind::Restart), NOW);
    assert_eq!(machine.joined_by("b"), Some("a"));
    let failed = |id: &str| answer(id.into(), RequestVerdict::Failed("why".into()));
    let actions = machine.step(Event::Broken(2, "why".into()), NOW);
    assert_eq!(actions[0], failed("a"), "{actions:?}");
    assert!(
        matches!(&actions[1], Action::Build { generation: 3, kind: RequestKind::Restart, request: Some(id), .. } if id == "b"),
        "{actions:?}"
    );
    assert_eq!(actions.len(), 2, "{actions:?}");
    // Both were asked before this one began: there is no third try.
    let actions = machine.step(Event::Broken(3, "why".into()), NOW);
    assert_eq!(actions, [failed("b"), failed("c")]);
}

#[test]
fn a_restart_asked_during_a_reload_takes_the_waiting_reload_along() {
    let mut machine = serving();
    machine.step(ask("a", RequestKind::Reload), NOW);
    machine.step(ask("b", RequestKind::Reload), NOW);
    machine.step(ask("c", RequestKind::Restart), NOW);
    let actions = machine.step(Event::Built(2), NOW);
    assert!(
        matches!(&actions[2], Action::Build { kind: RequestKind::Restart, request: Some(id), .. } if id == "c")
    );
    let actions = machine.step(Event::Built(3), NOW);
    assert!(actions.contains(&coalesced("b", "c", 3)));
}

#[test]
fn a_stop_overrides_a_queued_restart() {
    let mut machine = serving();
    machine.step(ask("a", RequestKind::Restart), NOW);
    machine.step(ask("b", RequestKind::Reload), NOW);
    let actions = machine.step(stop(false), NOW);
    assert_eq!(actions[0], Action::Abandon(2));
    assert_eq!(actions.len(), 4, "both requests are answered: {actions:?}");
    assert_eq!(actions[3], Action::Wind { at_once: false });
    assert_eq!(machine.step(Event::Built(2), NOW), [], "too late");
    assert_eq!(
        machine.step(ask("c", RequestKind::Restart), NOW),
        [reject("c".into(), STOPPING)]
    );
    let mut cutting = machine.clone();
    assert_eq!(machine.step(Event::Quiet, NOW), [Action::Exit(0)]);
    assert_eq!(cutting.step(Event::Cut, NOW), [Action::Exit(1)]);
}

#[test]
fn a_stop_that_hangs_is_forced() {
    let mut machine = serving();
    machine.step(stop(false), NOW);
    let until = machine.deadline().unwrap();
    assert_eq!(until, NOW + FORCE_EXIT);
    assert_eq!(
        machine.step(Event::Tick, until - Duration::from_millis(1)),
        []
    );
    assert_eq!(machine.step(Event::Tick, until), [Action::Exit(1)]);
}

#[test]
fn a_second_stop_at_once_ends_the_waiting() {
    let mut machine = serving();
    machine.step(stop(false), NOW);
    assert_eq!(machine.step(stop(false), NOW), []);
    assert_eq!(machine.step(stop(true), NOW), [Action::Exit(1)]);
}

#[test]
fn a_first_start_that_fails_ends_the_process_and_answers_who_asked_meanwhile() {
    let (mut machine, _) = Lifecycle::start(StartMode::First(Fallback::End));
    machine.step(ask("a", RequestKind::Restart), NOW);
    let actions = machine.step(Event::Broken(1, "no".into()), NOW);
    assert_eq!(
        actions,
        [
            answer("a".into(), RequestVerdict::Failed("no".into())),
            Action::Exit(1)
        ]
    );
}

#[test]
fn a_generation_that_dies_while_the_one_before_lives_gives_the_service_back() {
    let mut machine = serving();
    machine.step(ask("a", RequestKind::Restart), NOW);
    assert_eq!(machine.fallback(), None, "nothing is before the first");
    machine.step(Event::Built(2), NOW);
    assert_eq!(machine.fallback(), Some(1));
    let mut late = machine.clone();
    let back = Action::ServeAgain {
        generation: 1,
        failed: 2,
    };
    assert_eq!(machine.step(Event::ServingDied(1), NOW), []);
    assert_eq!(
        machine.step(Event::ServingDied(2), NOW),
        std::slice::from_ref(&back)
    );
    assert_eq!((machine.current(), machine.fallback()), (1, None));
    assert_eq!(machine.step(Event::ServingDied(1), NOW), []);
    // What is built next is another one.
    machine.step(ask("b", RequestKind::Restart), NOW);
    machine.step(Event::Built(3), NOW);
    assert_eq!((machine.current(), machine.fallback()), (3, Some(1)));
    // A reload keeps what serves; a restart under way goes on.
    late.step(ask("c", RequestKind::Restart), NOW);
    assert_eq!(late.step(Event::ServingDied(2), NOW), [back]);
    assert!(matches!(late.phase(), Phase::Building(build) if build.generation == 3));
    late.step(Event::Built(3), NOW);
    late.step(ask("d", RequestKind::Reload), NOW);
    assert_eq!(late.step(Event::ServingDied(3), NOW), []);
    late.step(Event::Built(4), NOW);
    late.step(Event::BeforeGone(3), NOW);
    assert_eq!(late.step(Event::ServingDied(4), NOW), [], "nothing is left");
}

#[test]
fn a_reload_that_finds_nothing_to_do_takes_no_number() {
    let (mut machine, _) = Lifecycle::start(StartMode::First(Fallback::End));
    machine.step(Event::Built(1), NOW);
    machine.step(ask("a", RequestKind::Reload), NOW);
    machine.step(ask("b", RequestKind::Restart), NOW);
    let actions = machine.step(Event::Unchanged(2), NOW);
    assert_eq!(
        actions[0],
        answer("a".to_owned(), RequestVerdict::Done(1)),
        "{actions:?}"
    );
    assert!(
        matches!(
            &actions[1],
            Action::Build {
                generation: 2,
                kind: RequestKind::Restart,
                ..
            }
        ),
        "{actions:?}"
    );
    machine.step(Event::Built(2), NOW);
    assert_eq!(machine.current(), 2);
    assert_eq!(
        machine.step(Event::Unchanged(2), NOW),
        [],
        "nothing is built"
    );
}

#[test]
fn one_sidecar_waits_its_turn_and_a_restart_of_all_takes_it_along() {
    let one = |name: &str| RequestKind::Sidecar(name.into());
    let begins = |actions: &[Action], number: u64, of: &RequestKind, id: &str| {
        let begun = actions.iter().any(|action| {
            matches!(action, Action::Build { generation, kind, request: Some(request), .. }
                if *generation == number && kind == of && request == id)
        });
        assert!(begun, "{actions:?}");
    };
    let mut machine = serving();
    begins(
        &machine.step(ask("a", one("web")), NOW),
        2,
        &one("web"),
        "a",
    );
    // The one that serves shares sidecars with the next one.
    assert_eq!(machine.fallback(), None);
    for (id, kind) in [
        ("b", one("web")),
        ("c", one("db")),
        ("d", one("web")),
        ("e", RequestKind::Reload),
    ] {
        assert_eq!(machine.step(ask(id, kind), NOW), [], "{id}");
        assert_eq!(machine.awaited_by(id), Some("a"));
    }
    let mut other = machine.clone();
    // Its program may have been replaced since the first one began: once more.
    begins(&machine.step(Event::Built(2), NOW), 3, &one("web"), "b");
    let actions = machine.step(Event::Built(3), NOW);
    assert!(actions.contains(&coalesced("d", "b", 3)), "{actions:?}");
    begins(&actions, 4, &one("db"), "c");
    // One that fails stops nobody else.
    begins(
        &machine.step(Event::Broken(4, "no".into()), NOW),
        5,
        &RequestKind::Reload,
        "e",
    );
    machine.step(Event::Built(5), NOW);
    assert_eq!(machine.fallback(), Some(3), "its copy of before still runs");

    assert_eq!(other.step(ask("f", RequestKind::Restart), NOW), []);
    let actions = other.step(Event::Built(2), NOW);
    begins(&actions, 3, &RequestKind::Restart, "f");
    other.step(ask("g", RequestKind::Restart), NOW);
    other.step(ask("h", one("web")), NOW);
    let mut failing = other.clone();
    let actions = other.step(Event::Built(3), NOW);
    for id in ["b", "c", "d", "e", "g"] {
        assert!(
            actions.contains(&coalesced(id, "f", 3)),
            "{id}: {actions:?}"
        );
    }
    begins(&actions, 4, &one("web"), "h");
    // The restart that joined the failed one is tried by itself, and is more than what waits.
    let actions = failing.step(Event::Broken(3, "no".into()), NOW);
    begins(&actions, 4, &RequestKind::Restart, "g");
    let actions = failing.step(Event::Built(4), NOW);
    assert!(actions.contains(&coalesced("h", "g", 4)), "{actions:?}");
}

#[test]
fn one_sidecar_is_not_started_while_all_wait() {
    let web = || RequestKind::Sidecar("web".into());
    let later = StartMode::Later {
        at: NOW,
        then: Fallback::Safe,
    };
    let (mut waiting, _) = Lifecycle::start(later);
    let refused = waiting.step(ask("a", web()), NOW);
    assert_eq!(refused, [reject("a".into(), NOT_STARTED)]);
    assert!(matches!(waiting.phase(), Phase::Waiting { .. }));
    let (mut starting, _) = Lifecycle::start(StartMode::First(Fallback::End));
    assert_eq!(starting.step(ask("a", web()), NOW), []);
    let actions = starting.step(Event::Built(1), NOW);
    assert!(
        matches!(&actions[..], [Action::Serve { .. }, Action::Build { generation: 2, kind, .. }] if *kind == web()),
        "{actions:?}"
    );
}

#[derive(Clone, Debug)]
enum Input {
    Restart,
    Reload,
    Sidecar,
    Stop(bool),
    Built(u64),
    Broken(u64),
    Unchanged(u64),
    Quiet,
    Died,
    Gone,
    Tick(u64),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        3 => Just(Input::Restart),
        3 => Just(Input::Reload),
        2 => Just(Input::Sidecar),
        1 => any::<bool>().prop_map(Input::Stop),
        4 => (0u64..3).prop_map(Input::Built),
        2 => (0u64..3).prop_map(Input::Broken),
        2 => (0u64..3).prop_map(Input::Unchanged),
        1 => Just(Input::Quiet),
        2 => Just(Input::Died),
        1 => Just(Input::Gone),
        2 => (0u64..20).prop_map(Input::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// One generation is built at a time, every request is answered exactly once, the serving one
    /// changes only to one that was built, or back to the one before while that lives, and a gateway
    /// that stops ends.
    #[test]
    fn whatever_happens_in_whatever_order(inputs in proptest::collection::vec(input(), 0..40)) {
        let (mut machine, first) = Lifecycle::start(StartMode::First(Fallback::End));
        let mut now = NOW;
        let mut asked = BTreeSet::new();
        let mut answered = BTreeSet::new();
        let mut building: Option<u64> = None;
        let (mut serves, mut before) = (0, None);
        let mut wound = false;
        let mut ended = false;
        let mut check = |actions: Vec<Action>, machine: &Lifecycle, gone: bool, answered: &mut BTreeSet<String>, building: &mut Option<u64>, wound: &mut bool, ended: &mut bool| -> Result<(), TestCaseError> {
            if gone {
                before = None;
            }
            for action in actions {
                prop_assert!(!*ended || matches!(action, Action::Answer { .. }), "only refusals after the end: {action:?}");
                match action {
                    Action::Build { generation, .. } => {
                        prop_assert!(building.is_none() && !*wound);
                        *building = Some(generation);
                    }
                    Action::Abandon(generation) => prop_assert_eq!(building.take(), Some(generation)),
                    Action::Serve { generation, .. } => {
                        prop_assert_eq!(building.take(), Some(generation));
                        prop_assert_eq!(machine.current(), generation);
                        before = Some(std::mem::replace(&mut serves, generation)).filter(|one| *one != 0);
                    }
                    Action::ServeAgain { generation, failed } => {
                        prop_assert!(!*wound);
                        prop_assert_eq!(before.take(), Some(generation));
                        prop_assert_eq!(std::mem::replace(&mut serves, generation), failed);
                        prop_assert_eq!(machine.current(), generation);
                    }
                    Action::Answer { id, .. } => prop_assert!(answered.insert(id), "answered twice"),
                    Action::Wind { .. } => { prop_assert!(!*wound); *wound = true; }
                    Action::Exit(_) => *ended = true,
                    other => prop_assert!(false, "nobody asked for {other:?}"),
                }
            }
            Ok(())
        };
        check(first, &machine, false, &mut answered, &mut building, &mut wound, &mut ended)?;
        for (index, input) in inputs.into_iter().enumerate() {
            let event = match input {
                Input::Restart | Input::Reload | Input::Sidecar => {
                    let id = index.to_string();
                    asked.insert(id.clone());
                    ask(&id, match input {
                        Input::Restart => RequestKind::Restart,
                        Input::Reload => RequestKind::Reload,
                        _ => RequestKind::Sidecar("web".into()),
                    })
                }
                Input::Stop(at_once) => stop(at_once),
                Input::Built(offset) => Event::Built((machine.last + 1).saturating_sub(offset)),
                Input::Broken(offset) => {
                    let generation = (machine.last + 1).saturating_sub(offset);
                    if building == Some(generation) { building = None; }
                    Event::Broken(generation, "no".into())
                }
                Input::Unchanged(offset) => {
                    let generation = (machine.last + 1).saturating_sub(offset);
                    if building == Some(generation) && matches!(machine.phase(), Phase::Building(_)) {
                        building = None;
                    }
                    Event::Unchanged(generation)
                }
                Input::Quiet => Event::Quiet,
                Input::Died => Event::ServingDied(machine.current()),
                Input::Gone => Event::BeforeGone(machine.fallback.unwrap_or_default()),
                Input::Tick(seconds) => { now += Duration::from_secs(seconds); Event::Tick }
            };
            let gone = matches!(event, Event::BeforeGone(_));
            let actions = machine.step(event, now);
            check(actions, &machine, gone, &mut answered, &mut building, &mut wound, &mut ended)?;
        }
        let actions = machine.step(stop(false), now);
        check(actions, &machine, false, &mut answered, &mut building, &mut wound, &mut ended)?;
        let actions = machine.step(Event::Quiet, now);
        check(actions, &machine, false, &mut answered, &mut building, &mut wound, &mut ended)?;
        prop_assert!(ended);
        prop_assert_eq!(asked, answered, "no request without an answer");
    }
}
