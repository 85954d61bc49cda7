use proptest::prelude::*;

use super::*;

const STABLE: Duration = Duration::from_secs(600);
const ZERO: Duration = Duration::ZERO;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn go(configuration: Configuration) -> (Recovery, Vec<Action>) {
    Recovery::begin(Start::Go, configuration, STABLE, ZERO)
}

fn last_good() -> Configuration {
    Configuration::LastGood { why: "g.toml:1:1: unknown key".to_owned() }
}

fn nothing() -> Configuration {
    Configuration::Nothing { why: "g.toml:1:1: unknown key".to_owned() }
}

fn alert(rung: &'static str, part: &str, action: &Action) -> bool {
    matches!(action, Action::Alert(alert) if alert.rung == rung && alert.reason.contains(part))
}

fn safe(again: bool) -> (Recovery, Vec<Action>) {
    Recovery::begin(Start::Safe { reason: "9 starts".to_owned(), again }, Configuration::Valid, STABLE, ZERO)
}

#[test]
fn a_usual_start_starts_and_is_trusted_after_it_served_for_long_enough() {
    let (mut machine, actions) = go(Configuration::Valid);
    assert_eq!((machine.rung(), actions.as_slice()), (&Rung::Normal, [Action::Start].as_slice()));
    assert_eq!(machine.sentence(), None);
    assert_eq!(machine.deadline(), None, "nothing serves yet");
    assert!(machine.step(Event::Ready(Configuration::Valid), secs(10)).is_empty());
    assert_eq!(machine.deadline(), Some(secs(610)));
    machine.step(Event::Unready, secs(300));
    assert_eq!(machine.deadline(), None, "what is not ready is not stable");
    machine.step(Event::Ready(Configuration::Valid), secs(400));
    machine.step(Event::Ready(Configuration::Valid), secs(500));
    assert!(machine.step(Event::Tick, secs(999)).is_empty());
    assert_eq!(machine.step(Event::Tick, secs(1000)), [Action::MarkStable]);
    machine.step(Event::Ready(Configuration::Valid), secs(1001));
    assert_eq!(machine.deadline(), None, "once in a life");
}

#[test]
fn a_throttled_start_waits_and_an_operator_need_not() {
    for (event, at) in [(Event::Tick, 5), (Event::Recover, 1)] {
        let start = Start::Wait { delay: secs(5), count: 4 };
        let (mut machine, actions) = Recovery::begin(start, Configuration::Valid, STABLE, ZERO);
        assert!(actions.is_empty());
        assert_eq!(machine.refused_until(), Some(secs(5)));
        assert!(machine.sentence().unwrap().contains("start 4 in quick succession after unplanned ends waits 5 s"));
        assert_eq!(machine.shown(secs(2)).left_ms, Some(3000));
        assert!(machine.step(Event::Tick, secs(4)).is_empty());
        assert!(machine.step(Event::Changed, secs(4)).is_empty());
        assert_eq!(machine.step(event, secs(at)), [Action::Start]);
        assert_eq!((machine.rung(), machine.refused_until()), (&Rung::Normal, None));
    }
}

#[test]
fn safe_mode_tries_every_ten_minutes_on_a_change_and_when_asked() {
    for (event, at) in [(Event::Tick, 600), (Event::Changed, 3), (Event::Recover, 3)] {
        let (mut machine, actions) = safe(false);
        assert!(actions.len() == 1 && alert("safe-mode", "9 starts", &actions[0]), "{actions:?}");
        assert_eq!(machine.refused_until(), Some(secs(600)));
        assert!(machine.step(Event::Tick, secs(599)).is_empty());
        assert_eq!(machine.step(event, secs(at)), [Action::MarkTrial, Action::Try]);
        assert_eq!((machine.refused_until(), machine.deadline()), (None, None), "requests wait for the trial");
        assert!(machine.step(Event::Recover, secs(at)).is_empty(), "one trial at a time");
        assert_eq!(machine.step(Event::Failed("app died".into()), secs(at + 1)), [Action::MarkSafe]);
        assert_eq!(machine.deadline(), Some(secs(at + 601)));
        machine.step(Event::Tick, secs(at + 601));
        assert!(machine.step(Event::Ready(Configuration::Valid), secs(at + 602)).is_empty());
        assert_eq!(machine.rung(), &Rung::Normal);
        assert_eq!(machine.step(Event::Tick, secs(at + 1202)), [Action::MarkStable]);
    }
}

#[test]
fn deaths_in_safe_mode_alarm_nobody_again() {
    assert!(safe(true).1.is_empty());
}

#[test]
fn the_last_good_configuration_serves_until_the_users_is_right() {
    let (mut machine, actions) = go(last_good());
    assert_eq!(actions[0], Action::Start);
    assert!(actions.len() == 2 && alert("last-good", "unknown key", &actions[1]), "{actions:?}");
    assert!(machine.step(Event::Ready(last_good()), secs(1)).is_empty(), "told once");
    assert_eq!(machine.step(Event::Recover, secs(2)), [Action::Try]);
    machine.step(Event::Failed("still not valid".into()), secs(2));
    assert!(matches!(machine.rung(), Rung::LastGood { .. }));
    machine.step(Event::Ready(Configuration::Valid), secs(3));
    assert_eq!(machine.rung(), &Rung::Normal);
}

#[test]
fn a_throttled_start_with_the_last_good_configuration_waits_first() {
    let start = Start::Wait { delay: secs(5), count: 4 };
    let (mut machine, actions) = Recovery::begin(start, last_good(), STABLE, ZERO);
    assert!(actions.is_empty());
    let actions = machine.step(Event::Tick, secs(5));
    assert!(actions[0] == Action::Start && alert("last-good", "unknown key", &actions[1]));
}

#[test]
fn without_any_configuration_it_is_safe_mode_which_the_throttle_does_not_remember() {
    for start in [Start::Go, Start::Wait { delay: secs(5), count: 4 }] {
        let (mut machine, actions) = Recovery::begin(start, nothing(), STABLE, ZERO);
        assert!(actions.len() == 1 && alert("safe-mode", "no last good one", &actions[0]), "{actions:?}");
        assert_eq!(machine.step(Event::Changed, secs(1)), [Action::Try]);
        assert!(machine.step(Event::Failed("still: unknown key".into()), secs(1)).is_empty());
        assert_eq!(machine.shown(secs(1)).reason.as_deref(), Some("still: unknown key"), "the reason of now");
        assert_eq!(machine.step(Event::Recover, secs(2)), [Action::Try]);
        machine.step(Event::Ready(Configuration::Valid), secs(3));
        assert_eq!(machine.rung(), &Rung::Normal);
    }
}

fn any_configuration() -> impl Strategy<Value = Configuration> {
    prop_oneof![Just(Configuration::Valid), Just(last_good()), Just(nothing())]
}

fn any_start() -> impl Strategy<Value = Start> {
    let wait = (0..200_u64).prop_map(|delay| Start::Wait { delay: secs(delay), count: 4 });
    let safe = any::<bool>().prop_map(|again| Start::Safe { reason: "r".to_owned(), again });
    prop_oneof![Just(Start::Go), wait, safe]
}

fn any_event() -> impl Strategy<Value = Event> {
    let served = prop_oneof![Just(Configuration::Valid), Just(last_good())].prop_map(Event::Ready);
    prop_oneof![
        Just(Event::Tick),
        Just(Event::Recover),
        Just(Event::Changed),
        Just(Event::Unready),
        Just(Event::Failed("f".to_owned())),
        served
    ]
}

proptest! {
    /// Whatever happens, sidecars are running, under way, or have a moment at which they will be started.
    #[test]
    fn it_always_leads_back(start in any_start(), configuration in any_configuration(),
        events in prop::collection::vec((0..700_u64, any_event()), 0..40))
    {
        let (mut machine, actions) = Recovery::begin(start, configuration, STABLE, ZERO);
        let mut started = actions.contains(&Action::Start);
        let mut now = ZERO;
        for (later, event) in events {
            now += secs(later);
            let actions = machine.step(event, now);
            prop_assert!(actions.iter().filter(|action| matches!(action, Action::Alert(_))).count() <= 1);
            prop_assert!(!(started && actions.contains(&Action::Start)), "the first generation is built once");
            started |= actions.contains(&Action::Start);
            match machine.rung() {
                Rung::Throttled { .. } => prop_assert!(machine.deadline().is_some()),
                Rung::Safe { trial_at, .. } => prop_assert!(trial_at.is_none() || machine.deadline() == *trial_at),
                Rung::Normal | Rung::LastGood { .. } => {}
            }
            prop_assert_eq!(machine.sentence().is_none(), *machine.rung() == Rung::Normal);
        }
    }
}
