use proptest::prelude::*;

use super::*;
use crate::gateway::lifecycle::{Action as Step, Event, Lifecycle};

const STABLE: Duration = Duration::from_secs(600);
const ZERO: Duration = Duration::ZERO;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn last_good() -> ConfigOrigin {
    let why = "g.toml:1:1: unknown key".to_owned();
    ConfigOrigin::LastGood { why }
}

fn nothing() -> ConfigOrigin {
    let why = "g.toml:1:1: unknown key".to_owned();
    ConfigOrigin::Nothing { why }
}

fn wait() -> StartDecision {
    StartDecision::Wait {
        delay: secs(5),
        count: 4,
    }
}

fn safe_start(again: bool) -> StartDecision {
    let reason = "9 starts".to_owned();
    StartDecision::Safe { reason, again }
}

#[track_caller]
fn assert_alert(rung: RungName, part: &str, actions: &[RecoveryAction]) {
    let told = matches!(actions, [RecoveryAction::Alert(alert)] if alert.kind == AlertKind::Rung(rung) && alert.reason.contains(part));
    assert!(told, "{actions:?}");
}

/// Both machines, as the driver has them.
struct LifeFixture {
    recovery: Recovery,
    lifecycle: Lifecycle,
    ready: bool,
    /// The generation to be built.
    building: Option<u64>,
}

impl LifeFixture {
    fn begin(start: StartDecision, configuration: ConfigOrigin) -> (Self, Vec<RecoveryAction>) {
        let (recovery, mut actions) = Recovery::begin(start, configuration, STABLE);
        let (lifecycle, steps) = Lifecycle::start(recovery.entry(Fallback::Persist));
        let mut life = Self {
            recovery,
            lifecycle,
            ready: false,
            building: None,
        };
        actions.extend(life.take(&steps, ZERO));
        (life, actions)
    }

    fn take(&mut self, steps: &[Step], now: Duration) -> Vec<RecoveryAction> {
        let build = steps.iter().find_map(|step| match step {
            Step::Build { generation, .. } => Some(*generation),
            _ => None,
        });
        self.building = build.or(self.building);
        self.recovery
            .follow(self.lifecycle.phase(), self.ready, now)
    }

    fn step(&mut self, event: Event, now: u64) -> Vec<RecoveryAction> {
        let steps = self.lifecycle.step(event, secs(now));
        self.take(&steps, secs(now))
    }

    fn built(&mut self, now: u64) -> Vec<RecoveryAction> {
        self.ready = true;
        let generation = self.building.take().expect("something is built");
        self.step(Event::Built(generation), now)
    }

    fn broken(&mut self, why: &str, now: u64) -> Vec<RecoveryAction> {
        let generation = self.building.take().expect("something is built");
        self.recovery.failed(why);
        self.step(Event::Broken(generation, why.to_owned()), now)
    }
}

#[test]
fn a_usual_start_is_trusted_after_it_served_for_long_enough() {
    let (mut life, actions) = LifeFixture::begin(StartDecision::Go, ConfigOrigin::Valid);
    assert!(actions.is_empty());
    assert_eq!(life.recovery.rung(), &Rung::Normal);
    assert_eq!(life.recovery.sentence(), None);
    assert_eq!(life.recovery.deadline(), None);
    assert!(life.built(10).is_empty());
    assert_eq!(life.recovery.deadline(), Some(secs(610)));
    life.ready = false;
    life.step(Event::Tick, 300);
    let deadline = life.recovery.deadline();
    assert_eq!(deadline, None, "what is not ready is not stable");
    life.ready = true;
    life.step(Event::Tick, 400);
    assert!(life.step(Event::Tick, 999).is_empty());
    assert_eq!(life.step(Event::Tick, 1000), [RecoveryAction::MarkStable]);
    assert!(
        life.step(Event::Tick, 5000).is_empty() && life.recovery.deadline().is_none(),
        "once in a life"
    );
}

#[test]
fn a_throttled_start_waits_and_an_operator_need_not() {
    for (event, at) in [(Event::Tick, 5), (Event::Recover, 1)] {
        let (mut life, actions) = LifeFixture::begin(wait(), ConfigOrigin::Valid);
        assert!(actions.is_empty() && life.building.is_none());
        assert_eq!(life.recovery.refused_until(), Some(secs(5)));
        let sentence = life.recovery.sentence().unwrap();
        assert!(sentence.contains("start 4 in quick succession after unplanned ends waits 5 s"));
        assert_eq!(life.recovery.shown(secs(2)).left_ms, Some(3000));
        assert!(life.step(Event::Tick, 0).is_empty());
        assert!(life.step(event, at).is_empty());
        assert_eq!(life.recovery.rung(), &Rung::Normal);
        assert_eq!(life.recovery.refused_until(), None);
        life.built(at + 1);
        assert_eq!(life.recovery.rung(), &Rung::Normal);
    }
}

#[test]
fn safe_mode_tries_every_ten_minutes_and_when_asked() {
    for (event, at) in [(Event::Tick, 600), (Event::Recover, 3)] {
        let (mut life, actions) = LifeFixture::begin(safe_start(false), ConfigOrigin::Valid);
        assert_alert(RungName::SafeMode, "9 starts", &actions);
        assert_eq!(life.recovery.refused_until(), Some(secs(600)));
        assert!(life.step(Event::Tick, 2).is_empty() && life.building.is_none());
        assert_eq!(life.step(event, at), [RecoveryAction::MarkTrial]);
        let refused = life.recovery.refused_until();
        assert_eq!(refused, None, "requests wait for the trial");
        assert!(life.recovery.sentence().unwrap().contains("being tried"));
        assert_eq!(life.broken("app died", at + 1), [RecoveryAction::MarkSafe]);
        assert_eq!(life.recovery.refused_until(), Some(secs(at + 601)));
        let reason = life.recovery.shown(secs(0)).reason.unwrap();
        assert_eq!(reason, "9 starts", "what led here stays the reason");
        let actions = life.step(Event::Tick, at + 601);
        assert_eq!(actions, [RecoveryAction::MarkTrial]);
        assert!(life.built(at + 602).is_empty());
        assert_eq!(life.recovery.rung(), &Rung::Normal);
        let actions = life.step(Event::Tick, at + 1202);
        assert_eq!(actions, [RecoveryAction::MarkStable]);
    }
}

#[test]
fn deaths_in_safe_mode_alarm_nobody_again() {
    let (_, actions) = LifeFixture::begin(safe_start(true), ConfigOrigin::Valid);
    assert!(actions.is_empty());
}

#[test]
fn the_last_good_configuration_serves_until_the_users_is_right() {
    let (mut life, actions) = LifeFixture::begin(StartDecision::Go, last_good());
    assert_alert(RungName::LastGood, "unknown key", &actions);
    assert!(life.built(1).is_empty(), "told once");
    assert!(life.recovery.adopted(&last_good()).is_empty());
    assert!(matches!(life.recovery.rung(), Rung::LastGood { .. }));
    assert!(life.recovery.adopted(&ConfigOrigin::Valid).is_empty());
    assert_eq!(life.recovery.rung(), &Rung::Normal);
}

#[test]
fn a_throttled_start_with_the_last_good_configuration_waits_first() {
    let (mut life, actions) = LifeFixture::begin(wait(), last_good());
    assert!(actions.is_empty());
    let actions = life.step(Event::Tick, 5);
    assert_alert(RungName::LastGood, "unknown key", &actions);
}

#[test]
fn without_any_configuration_it_is_safe_mode_which_the_throttle_does_not_remember() {
    for start in [StartDecision::Go, wait()] {
        let (mut life, actions) = LifeFixture::begin(start, nothing());
        assert_alert(RungName::SafeMode, "no last good one", &actions);
        assert!(life.step(Event::Recover, 1).is_empty());
        assert!(life.broken("still: unknown key", 1).is_empty());
        let reason = life.recovery.shown(secs(1)).reason.unwrap();
        assert_eq!(reason, "still: unknown key", "the reason of now");
        life.step(Event::Recover, 2);
        assert!(life.recovery.adopted(&ConfigOrigin::Valid).is_empty());
        life.built(3);
        assert_eq!(life.recovery.rung(), &Rung::Normal);
    }
}

#[test]
fn a_successor_has_nothing_to_recover_from() {
    let mut recovery = Recovery::successor(STABLE);
    assert_eq!(recovery.rung(), &Rung::Normal);
    assert!(recovery.follow(&Phase::Serving, true, secs(1)).is_empty());
    let actions = recovery.follow(&Phase::Serving, true, secs(601));
    assert_eq!(actions, [RecoveryAction::MarkStable]);
}

fn any_configuration() -> impl Strategy<Value = ConfigOrigin> {
    prop_oneof![
        Just(ConfigOrigin::Valid),
        Just(last_good()),
        Just(nothing())
    ]
}

fn any_start() -> impl Strategy<Value = StartDecision> {
    let wait = (0..200_u64).prop_map(|delay| StartDecision::Wait {
        delay: secs(delay),
        count: 4,
    });
    prop_oneof![
        Just(StartDecision::Go),
        wait,
        any::<bool>().prop_map(safe_start)
    ]
}

proptest! {
    /// Whatever happens, sidecars are running, under way, or have a moment at which they will be
    /// started; and what is refused and shown is what the lifecycle does.
    #[test]
    fn it_always_leads_back(start in any_start(), configuration in any_configuration(), choices in prop::collection::vec((0..700_u64, 0..4_u8), 0..40)) {
        let (mut life, _) = LifeFixture::begin(start, configuration);
        let mut now = 0;
        for (later, choice) in choices {
            now += later;
            let actions = match (choice, life.building) {
                (0, Some(_)) => life.built(now),
                (1, Some(_)) => life.broken("f", now),
                (2, _) => life.step(Event::Recover, now),
                _ => life.step(Event::Tick, now),
            };
            prop_assert!(actions.iter().filter(|action| matches!(action, RecoveryAction::Alert(_))).count() <= 1);
            match life.lifecycle.phase() {
                Phase::Waiting { until, .. } => {
                    prop_assert!(life.lifecycle.deadline().is_some());
                    prop_assert_eq!(life.recovery.refused_until(), Some(*until));
                }
                _ => prop_assert_eq!(life.recovery.refused_until(), None),
            }
            if *life.lifecycle.phase() == Phase::Serving {
                let above = matches!(life.recovery.rung(), Rung::Throttled { .. } | Rung::Safe { .. });
                prop_assert!(!above, "what serves is neither throttled nor in safe mode");
            }
            prop_assert_eq!(life.recovery.sentence().is_none(), *life.recovery.rung() == Rung::Normal);
        }
    }
}
