//! A minute of the faults of `cargo bench --bench chaos`, always the same.

use std::time::Duration;

#[path = "../../benches/chaos/clients.rs"]
mod clients;
#[path = "../../benches/chaos/judge.rs"]
mod judge;
#[path = "../../benches/chaos/run.rs"]
mod run;
#[path = "../../benches/chaos/scene.rs"]
mod scene;
#[path = "../../benches/chaos/schedule.rs"]
mod schedule;

/// Its first rounds have every kind of fault.
const SEED: u64 = 3;

const LENGTH: Duration = Duration::from_secs(60);

#[test]
fn a_minute_of_faults_at_random_costs_no_client_its_answer() {
    let plan = run::Plan {
        seed: SEED,
        first: 0,
        length: LENGTH,
    };
    // Shown where it fails.
    let Some(verdict) = run::run(plan, |line| eprintln!("{line}")) else {
        return;
    };
    assert!(verdict.wrong.is_empty(), "{verdict}");
}

#[test]
fn a_seed_gives_the_same_faults_again_and_another_one_others() {
    assert_eq!(schedule::round(7, 2), schedule::round(7, 2));
    assert_ne!(schedule::round(7, 2), schedule::round(8, 2));
    assert_ne!(schedule::round(7, 2), schedule::round(7, 3));
}
