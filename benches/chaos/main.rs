//! Faults at random, under load, on a real systemd: what is killed, stopped, told and filled up must
//! cost no client its answer.
//!
//! ```sh
//! cargo bench --bench chaos                          # a minute, with a seed of its own
//! cargo bench --bench chaos -- --seconds 3600
//! cargo bench --bench chaos -- --seed 7 --round 12   # one round again
//! ```
//!
//! A round draws faults for eight seconds, ends them, and waits until the gateway is settled. Then
//! nothing may be wrong: no client was refused, and none lost its answer but those whose process was
//! killed; one process serves, with one sidecar; every restart has an end in the record. The seed
//! gives the faults and their times; what meets what also depends on the machine. Exit code 1 when
//! something is wrong, 2 when it cannot run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod clients;
mod judge;
mod run;
mod scene;
mod schedule;

use std::process::ExitCode;
use std::time::Duration;

/// As long as in the tests.
const SECONDS: u64 = 60;

fn main() -> ExitCode {
    let mut plan = run::Plan {
        seed: fastrand::u64(..),
        first: 0,
        length: Duration::from_secs(SECONDS),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--bench" {
            // cargo bench passes this one.
            continue;
        }
        let number = args.next().and_then(|text| text.parse().ok());
        match (arg.as_str(), number) {
            ("--seconds", Some(seconds)) => plan.length = Duration::from_secs(seconds),
            ("--seed", Some(seed)) => plan.seed = seed,
            ("--round", Some(round)) => (plan.first, plan.length) = (round, Duration::ZERO),
            _ => {
                eprintln!("chaos: `{arg}`? There are --seconds N, --seed N and --round N");
                return ExitCode::from(2);
            }
        }
    }
    eprintln!("seed {}", plan.seed);
    let Some(verdict) = run::run(plan, |line| eprintln!("{line}")) else {
        return ExitCode::from(2);
    };
    println!("{verdict}");
    ExitCode::from(u8::from(!verdict.wrong.is_empty()))
}
